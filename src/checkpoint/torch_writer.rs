//! Writes what Python's `torch.load(weights_only=True)` and upstream's loader read: the archive of `torch.save` for an
//! `OrderedDict` of tensors, entry for entry as torch 2.11 writes it.

use std::{
    fs::File,
    io::{BufWriter, Seek, Write},
    path::Path,
};

use anyhow::{Context, Result};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{CONFIG_FILE, RawTensor};
use crate::dtype::Dtype;
use crate::{
    config::TrainConfig,
    store::{self, Existing},
};

/// Storages begin at multiples of this, so that they can be mapped.
const ALIGNMENT: u16 = 64;

/// Writes `folder/all_config.yaml` and `folder/step_N` as upstream's run folder has them. Several steps of one run share
/// the configuration, and so can share a folder.
///
/// # Errors
/// Those of [`store::write_file`]. Nothing half-written stays behind.
pub fn save_folder(
    folder: &Path,
    existing: Existing,
    step: u64,
    config: &TrainConfig,
    tensors: &[(String, RawTensor)],
) -> Result<()> {
    let shared = if existing == Existing::Refuse { Existing::Resume } else { existing };
    let name = step_name(step);
    store::create_folder(folder)?;
    store::write_bytes(&folder.join(CONFIG_FILE), shared, config.to_yaml()?.as_bytes())?;
    store::write_file(&folder.join(&name), existing, |file: &mut File| {
        write_to(&mut BufWriter::with_capacity(1 << 20, file), &name, tensors)
    })
}

/// The weights' name.
pub fn step_name(step: u64) -> String {
    format!("step_{step}")
}

/// Sorts tensors into the order of upstream's `state_dict`: initial states, embeddings and heads, H layers, L layers;
/// unknown names stay behind them in their order.
pub fn sort_as_upstream(tensors: &mut [(String, RawTensor)]) {
    const BEFORE_LAYERS: [&str; 8] = [
        "H_init",
        "L_init",
        "embed_tokens.embedding_weight",
        "lm_head.weight",
        "q_head.weight",
        "q_head.bias",
        "puzzle_emb.weights",
        "embed_pos.embedding_weight",
    ];
    const IN_LAYER: [&str; 4] =
        ["self_attn.qkv_proj.weight", "self_attn.o_proj.weight", "mlp.gate_up_proj.weight", "mlp.down_proj.weight"];
    let rank = |name: &str| -> Option<(usize, u64, usize)> {
        let inner = name.strip_prefix("model.inner.")?;
        if let Some(i) = BEFORE_LAYERS.iter().position(|n| *n == inner) {
            return Some((i, 0, 0));
        }
        let (level, rest) = inner.split_once("_level.layers.")?;
        let (layer, weight) = rest.split_once('.')?;
        let level = BEFORE_LAYERS.len() + ["H", "L"].iter().position(|l| *l == level)?;
        Some((level, layer.parse().ok()?, IN_LAYER.iter().position(|n| *n == weight)?))
    };
    tensors.sort_by_cached_key(|(name, _)| rank(name).unwrap_or((usize::MAX, 0, 0)));
}

/// Writes the archive; `root` is the folder inside it (torch takes the file's name).
///
/// # Errors
/// Those of the sink, and a size that the format cannot hold.
pub fn write_to(sink: &mut (impl Write + Seek), root: &str, tensors: &[(String, RawTensor)]) -> Result<()> {
    let mut zip = ZipWriter::new(sink);
    let mut entry = |name: &str, bytes: &[u8]| -> Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(ALIGNMENT)
            .large_file(u32::try_from(bytes.len()).is_err());
        zip.start_file(format!("{root}/{name}"), options)?;
        Ok(zip.write_all(bytes)?)
    };
    entry("data.pkl", &state_dict_pickle(tensors)?)?;
    entry(".format_version", b"1")?;
    entry(".storage_alignment", ALIGNMENT.to_string().as_bytes())?;
    entry("byteorder", b"little")?;
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        entry(&format!("data/{i}"), &tensor.data).with_context(|| format!("tensor {name}"))?;
    }
    entry("version", b"3\n")?;
    entry(".data/serialization_id", serialization_id(root, tensors).as_bytes())?;
    zip.finish()?.flush()?;
    Ok(())
}

/// Forty digits that differ between different checkpoints; torch makes them from hashes as well.
fn serialization_id(root: &str, tensors: &[(String, RawTensor)]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(root);
    for (name, tensor) in tensors {
        hash.update(name);
        hash.update(&tensor.data);
    }
    let digits: String = hash.finalize().iter().map(|b| format!("{b:03}")).collect();
    digits[..40].to_owned()
}

fn storage_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "DoubleStorage",
        Dtype::F32 => "FloatStorage",
        Dtype::F16 => "HalfStorage",
        Dtype::Bf16 => "BFloat16Storage",
        Dtype::I64 => "LongStorage",
        Dtype::I32 => "IntStorage",
        Dtype::I16 => "ShortStorage",
        Dtype::I8 => "CharStorage",
        Dtype::U8 => "ByteStorage",
        Dtype::Bool => "BoolStorage",
    }
}

/// A protocol 2 pickle, opcode for opcode what Python's own pickler makes of such a dictionary.
///
/// `OrderedDict([(name, _rebuild_tensor_v2(storage, 0, shape, stride, False, OrderedDict())), ...])`
fn state_dict_pickle(tensors: &[(String, RawTensor)]) -> Result<Vec<u8>> {
    let mut p = Pickler::default();
    p.out.extend(b"\x80\x02");
    p.global("collections", "OrderedDict")?;
    p.out.extend(b")R");
    p.memoize()?;
    if !tensors.is_empty() {
        // One batch for SETITEMS holds a thousand items; a single one is set by SETITEM.
        for batch in tensors.chunks(1000).enumerate() {
            let (first, items) = (batch.0 * 1000, batch.1);
            let single = items.len() == 1;
            if !single {
                p.out.push(b'(');
            }
            for (i, (name, tensor)) in items.iter().enumerate() {
                p.text(name)?;
                p.tensor(first + i, tensor).with_context(|| format!("tensor {name}"))?;
            }
            p.out.push(if single { b's' } else { b'u' });
        }
    }
    p.out.push(b'.');
    Ok(p.out)
}

#[derive(Default)]
struct Pickler {
    out: Vec<u8>,
    memo: u32,
    /// What Python's pickler recognises as the same object: classes, functions, interned strings.
    seen: Vec<(String, u32)>,
}

impl Pickler {
    fn memoize(&mut self) -> Result<u32> {
        let slot = self.memo;
        match u8::try_from(slot) {
            Ok(small) => self.out.extend([b'q', small]),
            Err(_) => {
                self.out.push(b'r');
                self.out.extend(slot.to_le_bytes());
            }
        }
        self.memo = slot.checked_add(1).context("too many objects")?;
        Ok(slot)
    }

    fn recall(&mut self, slot: u32) {
        match u8::try_from(slot) {
            Ok(small) => self.out.extend([b'h', small]),
            Err(_) => {
                self.out.push(b'j');
                self.out.extend(slot.to_le_bytes());
            }
        }
    }

    /// Writes by `write` the first time, and refers to it afterwards.
    fn once(&mut self, id: String, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if let Some(slot) = self.seen.iter().find(|(seen, _)| *seen == id).map(|(_, slot)| *slot) {
            self.recall(slot);
            return Ok(());
        }
        write(self)?;
        let slot = self.memoize()?;
        self.seen.push((id, slot));
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        self.once(format!("{module}\n{name}\n"), |p| {
            p.out.push(b'c');
            p.out.extend(format!("{module}\n{name}\n").bytes());
            Ok(())
        })
    }

    fn unicode(&mut self, text: &str) -> Result<()> {
        self.out.push(b'X');
        self.out.extend(u32::try_from(text.len()).context("its name is too long")?.to_le_bytes());
        self.out.extend(text.as_bytes());
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<()> {
        self.unicode(text)?;
        self.memoize().map(drop)
    }

    fn interned(&mut self, text: &str) -> Result<()> {
        self.once(text.to_owned(), |p| p.unicode(text))
    }

    fn int(&mut self, n: usize) -> Result<()> {
        if let Ok(n) = u8::try_from(n) {
            self.out.extend([b'K', n]);
        } else if let Ok(n) = u16::try_from(n) {
            self.out.push(b'M');
            self.out.extend(n.to_le_bytes());
        } else if let Ok(n) = i32::try_from(n) {
            self.out.push(b'J');
            self.out.extend(n.to_le_bytes());
        } else {
            let bytes = i64::try_from(n).context("a size is out of range")?.to_le_bytes();
            let used = (1..8).find(|n| bytes[*n..].iter().all(|b| *b == 0) && bytes[n - 1] < 0x80).unwrap_or(8);
            self.out.extend([0x8a, used as u8]);
            self.out.extend(&bytes[..used]);
        }
        Ok(())
    }

    fn int_tuple(&mut self, items: &[usize]) -> Result<()> {
        match items.len() {
            0 => {
                self.out.push(b')');
                return Ok(());
            }
            1..=3 => items.iter().try_for_each(|n| self.int(*n))?,
            _ => {
                self.out.push(b'(');
                items.iter().try_for_each(|n| self.int(*n))?;
            }
        }
        self.out.push(match items.len() {
            1 => 0x85,
            2 => 0x86,
            3 => 0x87,
            _ => b't',
        });
        self.memoize().map(drop)
    }

    fn tensor(&mut self, key: usize, tensor: &RawTensor) -> Result<()> {
        self.global("torch._utils", "_rebuild_tensor_v2")?;
        self.out.extend(b"((");
        self.interned("storage")?;
        self.global("torch", storage_name(tensor.dtype))?;
        self.text(&key.to_string())?;
        self.interned("cpu")?;
        self.int(tensor.numel())?;
        self.out.push(b't');
        self.memoize()?;
        self.out.push(b'Q');
        self.int(0)?;
        self.int_tuple(&tensor.shape)?;
        self.int_tuple(&row_major_strides(&tensor.shape))?;
        self.out.push(0x89);
        self.global("collections", "OrderedDict")?;
        self.out.extend(b")R");
        self.memoize()?;
        self.out.push(b't');
        self.memoize()?;
        self.out.push(b'R');
        self.memoize().map(drop)
    }
}

/// As torch counts them: an empty dimension counts as one.
fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d].saturating_mul(shape[d].max(1));
    }
    strides
}
