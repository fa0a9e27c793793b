//! Our form: a folder with `model.safetensors`, `all_config.yaml` and `meta.json`.

use std::{
    collections::HashMap,
    io::{BufReader, BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Metadata, TensorInfo};

use super::{CONFIG_FILE, CheckpointMeta, META_FILE, RawTensor, WEIGHTS_FILE, lfs};
use crate::{
    config::TrainConfig,
    dtype::Dtype,
    input,
    store::{self, Existing},
};

/// The largest header that is read; 100 MB is the format's own limit, a model here has a few kB.
const MAX_HEADER: u64 = 16 << 20;

/// Writes `folder/{all_config.yaml,meta.json,model.safetensors}`, each one atomically and the weights last, so that
/// a folder with weights is complete.
///
/// # Errors
/// Those of the file system, with the path.
pub fn save_folder(
    folder: &Path,
    existing: Existing,
    config: &TrainConfig,
    meta: &CheckpointMeta,
    tensors: &[(String, RawTensor)],
) -> Result<()> {
    let meta = format!("{}\n", serde_json::to_string_pretty(meta)?);
    store::create_folder(folder)?;
    store::write_bytes(&folder.join(CONFIG_FILE), existing, config.to_yaml()?.as_bytes())?;
    store::write_bytes(&folder.join(META_FILE), existing, meta.as_bytes())?;
    write(&folder.join(WEIGHTS_FILE), existing, tensors)
}

/// Writes one safetensors file atomically, streaming the tensors.
///
/// # Errors
/// Those of the file system, with the path.
pub fn write(path: &Path, existing: Existing, tensors: &[(String, RawTensor)]) -> Result<()> {
    // Wide elements first keeps every tensor aligned; within a width the given order stays.
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|(_, t)| std::cmp::Reverse(t.dtype.size()));
    let mut offset = 0usize;
    let mut infos = Vec::with_capacity(sorted.len());
    for (name, tensor) in &sorted {
        let end = offset.checked_add(tensor.data.len()).context("the tensors are too large in total")?;
        let (dtype, shape) = (tensor.dtype.into(), tensor.shape.clone());
        infos.push((name.clone(), TensorInfo { dtype, shape, data_offsets: (offset, end) }));
        offset = end;
    }
    let origin = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut header = serde_json::to_vec(&Metadata::new(Some(origin), infos)?)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    store::write_file(path, existing, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (_, tensor) in &sorted {
            out.write_all(&tensor.data)?;
        }
        Ok(out.flush()?)
    })
}

/// Reads a safetensors file, tensors in the order of their bytes.
///
/// # Errors
/// With the path: a Git LFS pointer, a damaged or truncated file, an element type that no checkpoint here has.
pub fn read(path: &Path) -> Result<Vec<(String, RawTensor)>> {
    lfs::refuse_pointer(path)?;
    let file = input::open(path)?;
    let len = file.metadata().with_context(|| path.display().to_string())?.len();
    read_from(BufReader::new(file), len).with_context(|| format!("{}: not readable as safetensors", path.display()))
}

fn read_from(mut source: impl Read, len: u64) -> Result<Vec<(String, RawTensor)>> {
    let mut size = [0u8; 8];
    source.read_exact(&mut size).context("it is too short for a header")?;
    let header_len = u64::from_le_bytes(size);
    ensure!(
        header_len <= MAX_HEADER && header_len <= len.saturating_sub(8),
        "it claims a header of {header_len} bytes in a file of {len}"
    );
    let mut header = vec![0; usize::try_from(header_len)?];
    source.read_exact(&mut header).context("its header is cut off")?;
    let metadata: Metadata = serde_json::from_slice(&header).context("its header is damaged")?;
    let wanted = (metadata.data_len() as u64).checked_add(8 + header_len);
    ensure!(wanted == Some(len), "its header describes {} bytes of tensors, the file has {}", metadata.data_len(), {
        len.saturating_sub(8 + header_len)
    });
    let mut infos: Vec<_> = metadata.tensors().into_iter().collect();
    infos.sort_by(|a, b| a.1.data_offsets.cmp(&b.1.data_offsets).then_with(|| a.0.cmp(&b.0)));
    let mut tensors = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        let dtype = Dtype::try_from(info.dtype).with_context(|| format!("tensor {name}"))?;
        let (start, end) = info.data_offsets;
        let mut data = vec![0; end.checked_sub(start).context("its header is damaged")?];
        source.read_exact(&mut data).with_context(|| format!("tensor {name} is cut off"))?;
        tensors.push((name, RawTensor::new(dtype, info.shape.clone(), data)?));
    }
    Ok(tensors)
}

impl From<Dtype> for safetensors::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U8 => Self::U8,
            Dtype::Bool => Self::BOOL,
        }
    }
}

impl TryFrom<safetensors::Dtype> for Dtype {
    type Error = anyhow::Error;

    fn try_from(dtype: safetensors::Dtype) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|&ours| safetensors::Dtype::from(ours) == dtype);
        found.with_context(|| format!("element type {dtype} is not supported"))
    }
}
