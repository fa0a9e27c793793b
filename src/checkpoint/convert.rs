//! One form of checkpoints from the other: safetensors, or upstream's torch.save.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    CONFIG_FILE, Checkpoint, CheckpointMeta, Format, Loaded, META_FILE, RawTensor, WEIGHTS_FILE, safetensors_file,
    torch_writer,
};
use crate::{
    config::TrainConfig,
    dtype::Dtype,
    input,
    store::{Existing, Staging},
};

/// Where a checkpoint goes, and as what.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The folder to write.
    pub folder: PathBuf,
    pub to: Format,
    /// For every floating-point tensor; none keeps their types.
    pub dtype: Option<Dtype>,
    /// Replace files that are there.
    pub force: bool,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The weights.
    pub file: PathBuf,
    pub tensors: usize,
    /// The step was not recorded, and 0 was written.
    pub without_step: bool,
}

/// A checkpoint in the form that is to be written.
struct Contents {
    config: TrainConfig,
    tensors: Vec<(String, RawTensor)>,
    form: Form,
}

enum Form {
    Safetensors(CheckpointMeta),
    /// Of a step.
    Torch(u64),
}

impl Conversion {
    /// Writes a checkpoint that was loaded. A folder that is new, or of which nothing would be left, appears whole.
    ///
    /// # Errors
    /// Files in the way; weights that are infinite in the wanted element type; those of the file system.
    pub fn run(&self, loaded: Loaded) -> Result<Converted> {
        let Loaded { checkpoint, meta, .. } = loaded;
        let Checkpoint { path, config, step, averaged, mut tensors, .. } = checkpoint;
        if let Some(dtype) = self.dtype {
            for (name, tensor) in &mut tensors {
                tensor.check_weights(name, dtype).with_context(|| path.display().to_string())?;
                *tensor = tensor.to_float(dtype);
            }
        }
        let form = match self.to {
            Format::Safetensors => {
                let mut meta = meta.unwrap_or_else(|| CheckpointMeta::of_this_process(step, None));
                meta.weights = averaged.then(|| "ema".to_owned());
                meta.other.insert("converted_from".into(), path.display().to_string().into());
                Form::Safetensors(meta)
            }
            Format::Torch => {
                torch_writer::sort_as_upstream(&mut tensors);
                Form::Torch(step.unwrap_or(0))
            }
        };
        let contents = Contents { config, tensors, form };
        self.write(&contents)?;
        Ok(Converted {
            file: self.folder.join(contents.weights()),
            tensors: contents.tensors.len(),
            without_step: self.to == Format::Torch && step.is_none(),
        })
    }

    fn write(&self, contents: &Contents) -> Result<()> {
        let existing = if self.force { Existing::Replace } else { Existing::Refuse };
        let names = contents.names();
        for path in names.iter().map(|name| self.folder.join(name)).filter(|path| path.symlink_metadata().is_ok()) {
            ensure!(
                !path.is_dir(),
                "{}: is a folder, and a file is to be written there; give another folder",
                path.display()
            );
            ensure!(
                self.force || contents.shares(&path)?,
                "{}: is there already; give another folder, or --force to replace it",
                path.display()
            );
        }
        let nothing_else = |folder: &Path| match others(folder, &names)? {
            None => Ok(()),
            Some(other) => bail!("{}: holds {other}, which is no part of the checkpoint", self.folder.display()),
        };
        let is_new = self.folder.symlink_metadata().is_err();
        if !is_new && (!self.force || nothing_else(&self.folder).is_err()) {
            return contents.save(&self.folder, existing);
        }
        let place = if is_new { self.folder.clone() } else { fs::canonicalize(&self.folder)? };
        let staging = Staging::beside(&place)?;
        contents.save(staging.path(), Existing::Refuse)?;
        staging.place(existing, nothing_else)
    }
}

impl Contents {
    fn weights(&self) -> String {
        match &self.form {
            Form::Safetensors(_) => WEIGHTS_FILE.to_owned(),
            Form::Torch(step) => torch_writer::step_name(*step),
        }
    }

    /// The files that will be written.
    fn names(&self) -> Vec<String> {
        let meta = matches!(self.form, Form::Safetensors(_)).then(|| META_FILE.to_owned());
        [self.weights(), CONFIG_FILE.to_owned()].into_iter().chain(meta).collect()
    }

    /// Whether a file that is there is one that steps of one run share.
    fn shares(&self, path: &Path) -> Result<bool> {
        let may = matches!(self.form, Form::Torch(_)) && path.ends_with(CONFIG_FILE);
        Ok(may && input::read_text(path, 1 << 20).ok() == Some(self.config.to_yaml()?))
    }

    fn save(&self, folder: &Path, existing: Existing) -> Result<()> {
        let Self { config, tensors, form } = self;
        match form {
            Form::Safetensors(meta) => safetensors_file::save_folder(folder, existing, config, meta, tensors),
            Form::Torch(step) => torch_writer::save_folder(folder, existing, *step, config, tensors),
        }
    }
}

/// Something in a folder that has none of these names.
fn others(folder: &Path, names: &[String]) -> Result<Option<String>> {
    let at = || format!("{}: cannot list the folder", folder.display());
    for entry in fs::read_dir(folder).with_context(at)? {
        let name = entry.with_context(at)?.file_name().to_string_lossy().into_owned();
        if !names.contains(&name) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
