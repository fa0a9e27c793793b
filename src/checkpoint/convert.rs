//! One form of checkpoints from the other: safetensors, or upstream's torch.save.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{
    CONFIG_FILE, Checkpoint, CheckpointMeta, Format, Loaded, META_FILE, WEIGHTS_FILE, safetensors_file, torch_writer,
};
use crate::{dtype::Dtype, input};

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

impl Conversion {
    /// Writes a checkpoint that was loaded.
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
        let mut without_step = false;
        let file = match self.to {
            Format::Safetensors => {
                self.refuse_overwrite(&[WEIGHTS_FILE, META_FILE, CONFIG_FILE])?;
                let mut meta = meta.unwrap_or_else(|| CheckpointMeta::of_this_process(step, None));
                meta.weights = averaged.then(|| "ema".to_owned());
                meta.other.insert("converted_from".into(), path.display().to_string().into());
                safetensors_file::save_folder(&self.folder, &config, &meta, &tensors)?;
                self.folder.join(WEIGHTS_FILE)
            }
            Format::Torch => {
                without_step = step.is_none();
                let step = step.unwrap_or(0);
                // Several steps of one run share a configuration, and so can share a folder.
                let there = input::read_text(&self.folder.join(CONFIG_FILE), 1 << 20).ok();
                self.refuse_overwrite(&[&format!("step_{step}")])?;
                if there != Some(config.to_yaml()?) {
                    self.refuse_overwrite(&[CONFIG_FILE])?;
                }
                torch_writer::sort_as_upstream(&mut tensors);
                torch_writer::save_folder(&self.folder, step, &config, &tensors)?
            }
        };
        Ok(Converted { file, tensors: tensors.len(), without_step })
    }

    /// Everything that would be replaced is looked for before anything is written.
    fn refuse_overwrite(&self, names: &[&str]) -> Result<()> {
        let there = names.iter().map(|n| self.folder.join(n)).find(|p| p.exists());
        match there {
            Some(path) if !self.force => {
                bail!("{}: is there already; give another folder, or --force to replace it", path.display())
            }
            Some(path) if path.is_dir() => {
                bail!("{}: is a folder, and a file is to be written there; give another folder", path.display())
            }
            _ => Ok(()),
        }
    }
}
