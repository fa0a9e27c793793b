//! Reads the files of Python's `torch.save`: a stored zip archive with a pickle and an entry for each storage.
//!
//! ```text
//! step_12/data.pkl     the dictionary; each tensor names a storage, an offset, a shape and strides
//! step_12/byteorder    "little"
//! step_12/data/0 ...   the storages' bytes
//! step_12/version      "3"
//! ```

use std::{
    collections::{HashMap, HashSet},
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use zip::{CompressionMethod, ZipArchive};

use super::{
    RawTensor, lfs,
    pickle::{self, MAX_PICKLE, StorageRef, TensorRef, show},
};
use crate::{input, memory, raw_tensor::byte_len};

/// Put before every name by torch.compile.
const COMPILED_PREFIX: &str = "_orig_mod.";
/// A zip archive's first bytes.
pub(super) const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// Reads a file of `torch.save`. Names lose a leading `_orig_mod.`; shared, strided and offset tensors become dense.
///
/// # Errors
/// With the path: a file that is no such archive (or a Git LFS pointer), is damaged or truncated, is big-endian, asks
/// for anything but tensors, or claims sizes that its bytes do not cover.
pub fn read(path: &Path) -> Result<Vec<(String, RawTensor)>> {
    lfs::refuse_pointer(path)?;
    let file = input::open(path)?;
    read_from(BufReader::new(file)).with_context(|| format!("{}: not readable as a torch.save file", path.display()))
}

/// [`read`] from memory or any other source.
///
/// Allocates at most a small multiple of the source's length, whatever the source claims.
///
/// # Errors
/// As [`read`], without the path.
pub fn read_from(mut source: impl Read + Seek) -> Result<Vec<(String, RawTensor)>> {
    let len = source.seek(SeekFrom::End(0))?;
    source.seek(SeekFrom::Start(0))?;
    let mut magic = Vec::new();
    source.by_ref().take(ZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
    if magic.first() == Some(&0x80) {
        bail!("this is torch's old format (before torch 1.6): load it with torch.load and torch.save it again");
    }
    ensure!(magic == ZIP_MAGIC, "it is not a zip archive");
    source.seek(SeekFrom::Start(0))?;
    let mut archive = Archive::open(source, len)?;
    if let Some(order) = archive.read_small("byteorder")? {
        ensure!(
            order == b"little",
            "its byte order is '{}', only little is supported",
            show(&String::from_utf8_lossy(&order))
        );
    }
    let pickle = archive.read_small("data.pkl")?.context("it has no data.pkl")?;
    let dict = pickle::read_state_dict(&pickle)?;

    let mut names = HashSet::new();
    // Each storage is read once, for all its tensors, and then dropped.
    let mut by_storage: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut total = 0u64;
    for (entry, (name, tensor)) in dict.entries.iter().enumerate() {
        let short = name.strip_prefix(COMPILED_PREFIX).unwrap_or(name);
        ensure!(names.insert(short), "the name '{}' occurs twice", show(short));
        let tensor = dict.tensors.get(*tensor).context("no such tensor")?;
        let at = || format!("tensor '{}'", show(name));
        total = total.saturating_add(check_view(tensor).with_context(at)?);
        archive.check_storage(&tensor.storage).with_context(at)?;
        by_storage.entry(tensor.storage.key).or_default().push(entry);
    }
    // A view with stride 0 can be far larger than its storage, and many views can share one.
    let limit = len.saturating_mul(4).saturating_add(1 << 20);
    ensure!(total <= limit, "its tensors would take {total} bytes, too many for a file of {len}");

    let mut tensors: Vec<Option<RawTensor>> = vec![None; dict.entries.len()];
    for entries in by_storage.values() {
        let mut storage: Option<Vec<u8>> = None;
        for (i, &entry) in entries.iter().enumerate() {
            let (name, tensor) = &dict.entries[entry];
            let tensor = &dict.tensors[*tensor];
            let bytes = match storage.take() {
                Some(bytes) => bytes,
                None => archive.read_storage(&tensor.storage).with_context(|| format!("tensor '{}'", show(name)))?,
            };
            let is_last = i + 1 == entries.len();
            let data = if is_last && covers(tensor) { bytes } else { storage.insert(bytes).gather(tensor)? };
            tensors[entry] = Some(RawTensor::new(tensor.storage.dtype, tensor.shape.clone(), data)?);
        }
    }
    let named = dict.entries.iter().zip(tensors).map(|((name, _), tensor)| {
        let short = name.strip_prefix(COMPILED_PREFIX).unwrap_or(name);
        Ok((short.to_owned(), tensor.context("a tensor was not read")?))
    });
    named.collect()
}

/// Bytes of the dense tensor; checks that the view stays inside its storage.
fn check_view(tensor: &TensorRef<'_>) -> Result<u64> {
    let bytes = byte_len(tensor.storage.dtype, &tensor.shape).context("its shape is out of range")?;
    if bytes > 0 {
        let last =
            tensor.shape.iter().zip(&tensor.stride).try_fold(tensor.offset, |at, (size, stride)| {
                at.checked_add(size.checked_sub(1)?.checked_mul(*stride)?)
            });
        ensure!(
            last.is_some_and(|last| last < tensor.storage.numel),
            "shape {:?} with strides {:?} from {} exceeds its storage of {} elements",
            tensor.shape,
            tensor.stride,
            tensor.offset,
            tensor.storage.numel
        );
    }
    Ok(bytes as u64)
}

/// Whether the tensor is its whole storage in order.
fn covers(tensor: &TensorRef<'_>) -> bool {
    tensor.offset == 0 && is_dense(tensor) && tensor.shape.iter().product::<usize>() == tensor.storage.numel
}

/// Row-major without gaps.
fn is_dense(tensor: &TensorRef<'_>) -> bool {
    let mut want = 1usize;
    tensor.shape.iter().zip(&tensor.stride).rev().all(|(size, stride)| {
        let ok = *size == 1 || *stride == want;
        want = want.saturating_mul(*size);
        ok
    })
}

trait Gather {
    /// The view's elements in row-major order. The view must have passed [`check_view`].
    fn gather(&self, tensor: &TensorRef<'_>) -> Result<Vec<u8>>;
}

impl Gather for Vec<u8> {
    fn gather(&self, tensor: &TensorRef<'_>) -> Result<Vec<u8>> {
        let size = tensor.storage.dtype.size();
        let bytes = byte_len(tensor.storage.dtype, &tensor.shape).context("its shape is out of range")?;
        let element = |at: usize, n: usize| {
            let start = at.checked_mul(size)?;
            self.get(start..start.checked_add(n)?)
        };
        let outside = "it exceeds its storage";
        if bytes == 0 {
            return Ok(Vec::new());
        }
        if is_dense(tensor) {
            return Ok(element(tensor.offset, bytes).context(outside)?.to_vec());
        }
        let mut out = memory::with_room(bytes)?;
        let mut index = vec![0usize; tensor.shape.len()];
        let mut at = tensor.offset;
        while out.len() < bytes {
            out.extend_from_slice(element(at, size).context(outside)?);
            // An odometer: the last dimension runs fastest.
            for d in (0..index.len()).rev() {
                index[d] += 1;
                at += tensor.stride[d];
                if index[d] < tensor.shape[d] {
                    break;
                }
                at -= tensor.stride[d] * tensor.shape[d];
                index[d] = 0;
            }
        }
        Ok(out)
    }
}

/// The zip archive and the folder in it that holds everything.
struct Archive<R> {
    zip: ZipArchive<R>,
    /// `step_12`, from `step_12/data.pkl`.
    root: String,
    len: u64,
}

impl<R: Read + Seek> Archive<R> {
    fn open(source: R, len: u64) -> Result<Self> {
        let zip = ZipArchive::new(source).context("the zip archive is damaged")?;
        let mut roots = Vec::new();
        for i in 0..zip.len() {
            let name = zip.name_for_index(i).context("the zip archive is damaged")??;
            if let Some(root) = name.strip_suffix("/data.pkl")
                && !root.contains('/')
            {
                roots.push(root.to_owned());
            }
        }
        match roots.as_slice() {
            [root] => Ok(Self { root: root.clone(), zip, len }),
            [] => bail!("the zip archive has no <name>/data.pkl, so torch.save did not write it"),
            _ => bail!("the zip archive has {} data.pkl, expected one", roots.len()),
        }
    }

    /// An entry beside the storages; none where it is missing.
    fn read_small(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let full = format!("{}/{name}", self.root);
        let Some(index) = self.zip.index_for_name(&full) else { return Ok(None) };
        self.read_entry(index, None, MAX_PICKLE).with_context(|| format!("entry {}", show(&full))).map(Some)
    }

    /// Checks a storage's claim against the entry, before anything is allocated for it.
    fn check_storage(&mut self, storage: &StorageRef<'_>) -> Result<()> {
        let (index, claimed) = self.find_storage(storage)?;
        let entry = self.zip.by_index_raw(index)?;
        ensure!(
            entry.size() == claimed,
            "its storage '{}' claims {claimed} bytes, the archive holds {}",
            show(storage.key),
            entry.size()
        );
        Ok(())
    }

    fn read_storage(&mut self, storage: &StorageRef<'_>) -> Result<Vec<u8>> {
        let (index, claimed) = self.find_storage(storage)?;
        let limit = self.len;
        self.read_entry(index, Some(claimed), limit)
    }

    fn find_storage(&self, storage: &StorageRef<'_>) -> Result<(usize, u64)> {
        let name = format!("{}/data/{}", self.root, storage.key);
        let index = self.zip.index_for_name(&name);
        let index = index.with_context(|| format!("its storage {} is missing", show(&name)))?;
        let bytes = storage.numel.checked_mul(storage.dtype.size()).context("its storage is out of range")?;
        Ok((index, bytes as u64))
    }

    /// Reads an entry to its end, where the checksum is compared.
    fn read_entry(&mut self, index: usize, wanted: Option<u64>, limit: u64) -> Result<Vec<u8>> {
        let len = self.len;
        let mut entry = self.zip.by_index(index)?;
        ensure!(entry.compression() == CompressionMethod::Stored, "it is compressed; torch.save does not compress");
        let size = entry.size();
        ensure!(
            size == entry.compressed_size() && size <= len && size <= limit,
            "it claims {size} bytes in a file of {len}"
        );
        ensure!(wanted.is_none_or(|w| w == size), "it has {size} bytes, expected {}", wanted.unwrap_or(size));
        let mut bytes = memory::with_room(usize::try_from(size)?)?;
        entry.read_to_end(&mut bytes).context("its bytes are damaged")?;
        ensure!(bytes.len() as u64 == size, "it ends after {} of {size} bytes", bytes.len());
        Ok(bytes)
    }
}
