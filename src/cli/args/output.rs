//! Where results go, and what of earlier ones.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{
    cli::ui::{JsonArg, JsonTarget, Ui},
    store::{Existing, check_output, same_place},
    study::{Files, StudyFolder},
};

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
    /// Folder for the data and the pictures; created if missing [default: named after the command]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Continue a stopped run in this folder
    #[arg(long, conflicts_with = "force")]
    resume: bool,
    /// Start over although the folder has an earlier run
    #[arg(long)]
    force: bool,
    /// Pictures as
    #[arg(long, value_name = "png|svg|both", default_value = "png", hide_possible_values = true)]
    format: FormatChoice,
    #[command(flatten)]
    json: JsonArg,
}

impl OutputArgs {
    /// Prints the command's text and its JSON.
    pub fn ui(&self) -> Ui {
        Ui::new(&self.json)
    }

    /// The folder, made if missing. To be called when everything else that was typed has been checked.
    pub fn open(&self, files: Files) -> Result<StudyFolder> {
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
        let folder = self.output_dir.clone().unwrap_or_else(|| PathBuf::from(files.folder));
        StudyFolder::open(folder, existing, endings, files)
    }
}

/// `--force` of commands that write files by name.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct ForceArg {
    /// Replace files that are there already
    #[arg(long)]
    force: bool,
}

impl ForceArg {
    /// What to do with files that are there already.
    pub fn existing(self) -> Existing {
        if self.force { Existing::Replace } else { Existing::Refuse }
    }

    /// [`ForceArg::existing`], once it is known that `file` can be written so; to be asked before the work.
    pub fn check(self, file: &Path, json: &JsonArg) -> Result<Existing> {
        check_files([file], self.existing(), json)?;
        Ok(self.existing())
    }
}

/// Asks whether the files can be written, and the results of `--json` beside them. To be asked before the work.
pub fn check_files<'a>(files: impl IntoIterator<Item = &'a Path>, existing: Existing, json: &JsonArg) -> Result<()> {
    for file in files {
        check_output(file, existing).with_context(|| file.display().to_string())?;
        if let Some(JsonTarget::File(other)) = &json.json {
            ensure!(!same_place(file, other), "{}: --json would replace it: give it another name", file.display());
        }
    }
    Ok(())
}
