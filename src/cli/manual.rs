//! `hrm completions` and `hrm man`: made from the definition that `--help` comes from.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{args::output::ForceArg, ui};
use crate::{
    input,
    store::{Existing, Unplaced, check_output, create_folder, write_bytes},
};

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
    /// Write hrm.1 and a page per command into this folder, which is created if missing
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    #[command(flatten)]
    force: ForceArg,
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
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    render(&command, &mut pages)?;
    create_folder(&folder)?;
    // Pages that an earlier call has written stay as they are.
    let existing = if args.force.existing() == Existing::Replace { Existing::Replace } else { Existing::Resume };
    let pages: Vec<(PathBuf, Vec<u8>)> = pages.into_iter().map(|(name, page)| (folder.join(name), page)).collect();
    for (path, page) in &pages {
        let other = existing == Existing::Resume
            && path.exists()
            && input::read(path, page.len() as u64).ok().as_ref() != Some(page);
        let checked = if other { Err(Unplaced::Other) } else { check_output(path, existing) };
        checked.with_context(|| path.display().to_string())?;
    }
    pages.iter().try_for_each(|(path, page)| write_bytes(path, existing, page))
}

/// The pages of the command and of each below it, by their file names.
fn render(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        render(inner, pages)?;
    }
    let manual = clap_mangen::Man::new(command.clone());
    let mut page = Vec::new();
    manual.render(&mut page)?;
    pages.push((manual.get_filename(), page));
    Ok(())
}
