//! What every long analysis shares: its output folder, its journal, how it is stopped and goes on.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use ndarray_npy::WriteNpyExt;
use serde::{Serialize, de::DeserializeOwned};

use super::ui::{JsonArg, Ui, to_json};
use crate::{
    journal::{Existing, Identity, Journal},
    model::Model,
    outcome::Interrupted,
    say,
    store::{create_folder, write_bytes, write_npy},
    viz::{Picture, save},
};

/// Puzzles or points that go through the model together where nothing better is known.
const CPU_BATCH: usize = 64;

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatChoice {
    Png,
    Svg,
    Both,
}

/// Where results go, and what of earlier ones; the last arguments of every such command.
#[derive(clap::Args, Clone, Debug)]
pub struct OutputArgs {
    /// Folder for the data and the pictures; made if it is missing [default: named after the command]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Go on with a run in this folder that was stopped
    #[arg(long, conflicts_with = "force")]
    resume: bool,
    /// Begin anew although the folder holds an earlier run
    #[arg(long)]
    force: bool,
    /// Pictures as
    #[arg(long, value_name = "png|svg|both", default_value = "png", hide_possible_values = true)]
    format: FormatChoice,
    #[command(flatten)]
    json: JsonArg,
}

impl OutputArgs {
    /// The command's mouth, for its text and its JSON.
    pub fn ui(&self) -> Ui {
        Ui::new(&self.json)
    }

    /// The folder, made if missing. To be called when everything else that was typed has been checked.
    pub fn open(&self, default: &str) -> Result<Output> {
        let folder = self.output_dir.clone().unwrap_or_else(|| PathBuf::from(default));
        ensure!(!folder.as_os_str().is_empty(), "--output-dir: an empty name: give a folder");
        ensure!(
            !folder.exists() || folder.is_dir(),
            "{}: this is a file: give a folder as --output-dir",
            folder.display()
        );
        create_folder(&folder)?;
        let existing = match (self.resume, self.force) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Replace,
            _ => Existing::Refuse,
        };
        let endings = match self.format {
            FormatChoice::Png => vec!["png"],
            FormatChoice::Svg => vec!["svg"],
            FormatChoice::Both => vec!["png", "svg"],
        };
        Ok(Output { folder, existing, endings })
    }
}

/// An open output folder.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    existing: Existing,
    endings: Vec<&'static str>,
}

impl Output {
    /// The journal of that name, and what it holds.
    pub fn journal<I: Identity, R: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        identity: &I,
    ) -> Result<(Journal<I, R>, Vec<R>)> {
        Journal::open(&self.folder.join(name), identity, self.existing)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Saves a picture under a name without ending; returns the files.
    pub fn picture<P: Picture>(&self, name: &str, picture: &P) -> Result<Vec<String>> {
        let files = self.endings.iter().map(|ending| self.folder.join(format!("{name}.{ending}")));
        files.map(|path| save(picture, &path).map(|()| path.display().to_string())).collect()
    }

    /// Writes an array under a name without ending, as numpy's `.npy`; returns the file.
    pub fn array(&self, name: &str, array: &impl WriteNpyExt) -> Result<String> {
        let path = self.folder.join(format!("{name}.npy"));
        write_npy(&path, array)?;
        Ok(path.display().to_string())
    }

    /// Writes a JSON document; returns the file.
    pub fn json<T: Serialize>(&self, name: &str, value: &T) -> Result<String> {
        let path = self.folder.join(name);
        write_bytes(&path, &to_json(value)?)?;
        Ok(path.display().to_string())
    }
}

/// Rows of a batch: what was asked for, else what fills a GPU, else a number that is good for a CPU.
pub fn batch_size(asked: Option<u64>, model: &Model) -> usize {
    let asked = asked.and_then(|n| usize::try_from(n).ok());
    asked.or_else(|| model.filling_batch(0)).unwrap_or(CPU_BATCH)
}

/// Tells how far work that was asked to stop came; `place` holds what was found.
pub fn interrupted(ui: &Ui, done: usize, total: usize, place: &Path) -> Interrupted {
    say!(ui, "interrupted after {done} of {total}; what was found lies in {}, and --resume goes on", place.display());
    Interrupted::TOLD
}
