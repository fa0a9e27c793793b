//! `hrm completions` and `hrm man`: made from the definition that `--help` comes from.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::ui;
use crate::store::{create_folder, write_bytes};

/// Print the completion script for a shell
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  hrm completions bash > ~/.local/share/bash-completion/completions/hrm
  hrm completions zsh > ~/.zfunc/_hrm          (with ~/.zfunc in $fpath)
  hrm completions fish > ~/.config/fish/completions/hrm.fish")]
pub struct CompletionsArgs {
    shell: clap_complete::Shell,
}

/// Print the manual page (roff), or write a page per command into a folder
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  hrm man | man -l -
  hrm man --output-dir ~/.local/share/man/man1     (then: man hrm-infer)")]
pub struct ManArgs {
    /// Write hrm.1 and a page per command into this folder, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

pub fn completions(args: CompletionsArgs, mut command: clap::Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "hrm", &mut script);
    ui::print_document(&script)
}

pub fn man(args: ManArgs, command: clap::Command) -> Result<()> {
    let Some(folder) = args.output_dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return ui::print_document(&page);
    };
    create_folder(&folder)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_pages(&command, &folder)
}

/// A page for the command and each below it, each there as a whole or not at all.
fn write_pages(command: &clap::Command, folder: &Path) -> Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        write_pages(inner, folder)?;
    }
    let manual = clap_mangen::Man::new(command.clone());
    let mut page = Vec::new();
    manual.render(&mut page)?;
    write_bytes(&folder.join(manual.get_filename()), &page)
}
