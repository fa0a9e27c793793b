//! Where the results of long analyses go.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    cli::ui::{JsonArg, Ui},
    journal::Existing,
    study::Output,
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
    /// Prints the command's text and its JSON.
    pub fn ui(&self) -> Ui {
        Ui::new(&self.json)
    }

    /// The folder, made if missing. To be called when everything else that was typed has been checked.
    pub fn open(&self, default: &str) -> Result<Output> {
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
        Output::open(self.output_dir.clone().unwrap_or_else(|| PathBuf::from(default)), existing, endings)
    }
}
