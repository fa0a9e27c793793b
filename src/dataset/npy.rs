//! NumPy's `.npy` files: the header that numpy writes, byte for byte, and arrays of integers.
//!
//! The header is parsed here, by a scanner that neither recurses nor allocates by what the file claims, because a
//! dataset folder may come from anywhere.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::array_data::ArrayData;
use crate::input;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// numpy aligns the data to this many bytes.
const ALIGN: usize = 64;
/// numpy leaves room in the header for a first axis of this many digits.
const GROWTH_DIGITS: usize = 21;
/// A header longer than this is no dataset's.
const MAX_HEADER: usize = 1 << 16;
/// Tokens of up to so many bytes are copied into memory; of more, those that are wanted are read each time.
const IN_MEMORY: usize = 256 << 20;

/// Element types that dataset arrays are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NpyDtype {
    U8,
    I32,
    I64,
}

impl NpyDtype {
    fn descr(self) -> &'static str {
        match self {
            Self::U8 => "|u1",
            Self::I32 => "<i4",
            Self::I64 => "<i8",
        }
    }

    fn from_descr(descr: &str) -> Option<Self> {
        [Self::U8, Self::I32, Self::I64]
            .into_iter()
            .find(|d| d.descr() == descr || d.descr() == descr.replace('=', "<"))
    }

    fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::I32 => 4,
            Self::I64 => 8,
        }
    }
}

/// The bytes before the data of a C-ordered array, as numpy 2 writes them (format 1.0). Not ndarray-npy's: it leaves out
/// numpy's trailing comma, and a dataset's fingerprint counts these bytes.
pub(super) fn header(dtype: NpyDtype, shape: &[usize]) -> Vec<u8> {
    let dims = match shape {
        [n] => format!("({n},)"),
        _ => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    };
    let mut text = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {dims}, }}", dtype.descr());
    if let Some(first) = shape.first() {
        text.extend(std::iter::repeat_n(' ', GROWTH_DIGITS.saturating_sub(first.to_string().len())));
    }
    let before = MAGIC.len() + 4;
    let unpadded = before + text.len() + 1;
    text.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(ALIGN) - unpadded));
    text.push('\n');

    let mut bytes = Vec::with_capacity(before + text.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[1, 0]);
    // Four dimensions of 20 digits still stay far below 65,536 characters.
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// An array file that has been checked: its header is sound and the file is as long as the header says.
#[derive(Debug)]
pub(super) struct NpyFile {
    path: PathBuf,
    dtype: NpyDtype,
    shape: Vec<usize>,
    data: ArrayData,
}

impl NpyFile {
    /// Opens the file. Nothing is read but the header.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let at = || format!("{}", path.display());
        let mut file = input::open(path)?;
        let length = file.metadata().with_context(at)?.len();
        let mut start = Vec::new();
        (&mut file).take((MAX_HEADER + 16) as u64).read_to_end(&mut start).with_context(at)?;
        let header = parse_header(&start).with_context(at)?;

        let data = header
            .shape
            .iter()
            .try_fold(header.dtype.size(), |n, &dim| n.checked_mul(dim))
            .and_then(|n| n.checked_add(header.data_offset));
        match data {
            Some(wanted) if wanted as u64 == length => {}
            Some(wanted) => bail!(
                "{}: {length} bytes, but an array of shape {:?} needs {wanted}: the file is damaged; build the dataset \
                 again",
                path.display(),
                header.shape
            ),
            None => bail!("{}: impossible shape {:?}", path.display(), header.shape),
        }
        let data = ArrayData::new(path, file, header.data_offset)?;
        let whole = (header.data_offset + data.len()) as u64 == length;
        ensure!(whole, "{}: changed while it was opened", path.display());
        Ok(Self { path: path.to_owned(), dtype: header.dtype, shape: header.shape, data })
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Shows the elements as 64-bit integers, in order, with their places.
    fn each_integer(&self, mut act: impl FnMut(usize, i64) -> Result<()>) -> Result<()> {
        let mut next = 0;
        self.data.each_chunk(self.dtype.size(), |part| {
            let mut act = |x: i64| {
                next += 1;
                act(next - 1, x)
            };
            match self.dtype {
                NpyDtype::U8 => part.iter().try_for_each(|&x| act(i64::from(x))),
                NpyDtype::I32 => part.as_chunks().0.iter().try_for_each(|&x| act(i64::from(i32::from_le_bytes(x)))),
                NpyDtype::I64 => part.as_chunks().0.iter().try_for_each(|&x| act(i64::from_le_bytes(x))),
            }
        })
    }

    /// The elements as 32-bit integers.
    pub(super) fn to_i32(&self) -> Result<Vec<i32>> {
        let mut all = Vec::with_capacity(self.data.len() / self.dtype.size());
        self.each_integer(|i, x| {
            let x = i32::try_from(x);
            all.push(x.with_context(|| format!("{}: element {i} is beyond 32 bits", self.path.display()))?);
            Ok(())
        })?;
        Ok(all)
    }

    /// The elements in the most compact form that holds them.
    pub(super) fn into_tokens(self) -> Result<Tokens> {
        self.into_tokens_up_to(IN_MEMORY)
    }

    fn into_tokens_up_to(self, in_memory: usize) -> Result<Tokens> {
        if self.dtype == NpyDtype::U8 {
            let small = self.data.len() <= in_memory;
            return Ok(if small { Tokens::Bytes(self.data.to_vec()?) } else { Tokens::File(self.data) });
        }
        let mut bytes = Vec::with_capacity(self.data.len() / self.dtype.size());
        let mut wide = false;
        self.each_integer(|_, x| {
            wide |= u8::try_from(x).is_err();
            bytes.push(x as u8);
            Ok(())
        })?;
        Ok(if wide { Tokens::Words(self.to_i32()?) } else { Tokens::Bytes(bytes) })
    }
}

/// Tokens of many examples, one byte each where the values allow it.
#[derive(Debug)]
pub(super) enum Tokens {
    /// Too many to be kept in memory.
    File(ArrayData),
    Bytes(Vec<u8>),
    Words(Vec<i32>),
}

impl Tokens {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Words(words) => words.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::File(data) => data.len(),
        }
    }

    /// Copies `out.len()` tokens from `start` on. The range must lie within the array. What was read from a file counts
    /// once [`Tokens::check_unchanged`] has followed.
    pub(super) fn copy(&self, start: usize, out: &mut [i32]) -> Result<()> {
        let range = start..start + out.len();
        let widen = |bytes: &[u8], out: &mut [i32]| {
            out.iter_mut().zip(bytes).for_each(|(to, &from)| *to = i32::from(from));
        };
        match self {
            Self::Words(words) => out.copy_from_slice(&words[range]),
            Self::Bytes(bytes) => widen(&bytes[range], out),
            Self::File(data) => {
                let mut bytes = vec![0; out.len()];
                data.copy(start, &mut bytes)?;
                widen(&bytes, out);
            }
        }
        Ok(())
    }

    /// Whether the file behind the tokens, where there is one, is what it was when it was checked.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        if let Self::File(data) = self { data.check_unchanged() } else { Ok(()) }
    }

    /// The first element outside `0..bound` that is not `except`, with its position.
    pub(super) fn find_outside(&self, bound: i64, except: Option<i64>) -> Result<Option<(usize, i64)>> {
        let outside = |x: i64| !(0..bound).contains(&x) && Some(x) != except;
        let in_bytes = |bytes: &[u8]| {
            // The maximum first: it is computed at memory speed, and nearly always settles it.
            let most = bytes.par_chunks(1 << 20).map(|part| part.iter().copied().fold(0, u8::max)).max();
            if most.is_none_or(|most| i64::from(most) < bound) {
                return None;
            }
            bytes.iter().map(|&x| i64::from(x)).enumerate().find(|&(_, x)| outside(x))
        };
        match self {
            Self::Words(words) => Ok(words.iter().map(|&x| i64::from(x)).enumerate().find(|&(_, x)| outside(x))),
            Self::Bytes(bytes) => Ok(in_bytes(bytes)),
            Self::File(data) => {
                let (mut before, mut found) = (0, None);
                data.each_chunk(1, |part| {
                    found = found.or_else(|| in_bytes(part).map(|(at, x)| (before + at, x)));
                    before += part.len();
                    Ok(())
                })?;
                Ok(found)
            }
        }
    }

    /// Feeds the array to a hash as the `.npy` file that we would write for it.
    pub(super) fn hash_into(&self, shape: &[usize], hash: &mut Sha256) -> Result<()> {
        if let Self::Words(words) = self {
            hash_i32(words, shape, hash);
            return Ok(());
        }
        hash.update(header(NpyDtype::U8, shape));
        match self {
            Self::File(data) => data.each_chunk(1, |part| {
                hash.update(part);
                Ok(())
            }),
            Self::Bytes(bytes) => {
                hash.update(bytes);
                Ok(())
            }
            Self::Words(_) => Ok(()),
        }
    }
}

/// Feeds an int32 array to a hash as its `.npy` file.
pub(super) fn hash_i32(values: &[i32], shape: &[usize], hash: &mut Sha256) {
    hash.update(header(NpyDtype::I32, shape));
    let mut bytes = Vec::with_capacity(4 * 4096);
    for chunk in values.chunks(4096) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
        hash.update(&bytes);
    }
}

struct Header {
    dtype: NpyDtype,
    shape: Vec<usize>,
    data_offset: usize,
}

fn parse_header(start: &[u8]) -> Result<Header> {
    ensure!(start.starts_with(MAGIC), "not a .npy file (it does not begin with \\x93NUMPY)");
    let (length, text_at) = match start.get(6..12) {
        Some(&[1, 0, a, b, ..]) => (usize::from(u16::from_le_bytes([a, b])), 10),
        Some(&[2 | 3, 0, a, b, c, d]) => (u32::from_le_bytes([a, b, c, d]) as usize, 12),
        Some(&[major, minor, ..]) => bail!(".npy format {major}.{minor} is unknown; 1.0 to 3.0 can be read"),
        _ => bail!("the .npy header is cut off"),
    };
    ensure!(length <= MAX_HEADER, "a .npy header of {length} bytes is too long for a dataset");
    let data_offset = text_at + length;
    let text = start.get(text_at..data_offset).context("the .npy header is cut off")?;
    let text = std::str::from_utf8(text).context("the .npy header is not text")?;

    let descr = value_of(text, "descr")?;
    let found = descr.get(1..).and_then(|rest| rest.split(['\'', '"']).next()).unwrap_or_default();
    let quoted = descr.starts_with(['\'', '"']);
    let Some(dtype) = NpyDtype::from_descr(found).filter(|_| quoted) else {
        let shown: String = descr.chars().take(40).collect();
        bail!("element type {shown:?}; dataset arrays are uint8 ('|u1'), int32 ('<i4') or int64 ('<i8')");
    };

    let dims = value_of(text, "shape")?
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
        .context("the .npy header's shape is not a tuple")?
        .0;
    let shape = dims
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty())
        .map(|dim| dim.parse::<usize>().with_context(|| format!("the .npy header's shape holds {dim:?}")))
        .collect::<Result<Vec<_>>>()?;

    let fortran = value_of(text, "fortran_order")?;
    ensure!(
        fortran.starts_with("False") || (fortran.starts_with("True") && shape.len() < 2),
        "the array is stored by columns (fortran_order); save numpy.ascontiguousarray of it"
    );
    Ok(Header { dtype, shape, data_offset })
}

/// The header's text from the value of `key` on.
fn value_of<'a>(text: &'a str, key: &str) -> Result<&'a str> {
    ["'", "\""]
        .iter()
        .find_map(|quote| text.split_once(&format!("{quote}{key}{quote}")))
        .and_then(|(_, rest)| rest.trim_start().strip_prefix(':'))
        .map(str::trim_start)
        .with_context(|| format!("the .npy header lacks '{key}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: &[u8]) -> Result<NpyFile> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), bytes)?;
        NpyFile::open(file.path())
    }

    fn message(bytes: &[u8]) -> String {
        open(bytes).map(|_| ()).map_err(|e| format!("{e:#}")).expect_err("refused")
    }

    fn array(dtype: NpyDtype, shape: &[usize], data: &[u8]) -> Vec<u8> {
        [header(dtype, shape).as_slice(), data].concat()
    }

    #[test]
    fn three_element_types_read_the_same() -> Result<()> {
        let values = [0i64, 7, 10, 1, 2, 3];
        let files = [
            array(NpyDtype::U8, &[2, 3], &values.map(|x| x as u8)),
            array(NpyDtype::I32, &[2, 3], &values.map(|x| (x as i32).to_le_bytes()).concat()),
            array(NpyDtype::I64, &[2, 3], &values.map(i64::to_le_bytes).concat()),
        ];
        for bytes in files {
            let file = open(&bytes)?;
            assert_eq!(file.shape(), [2, 3]);
            assert_eq!(file.to_i32()?, values.map(|x| x as i32));
            let in_file = open(&bytes)?.into_tokens_up_to(5)?;
            let tokens = file.into_tokens()?;
            assert!(matches!(tokens, Tokens::Bytes(_)), "values below 256 take one byte each");
            assert_eq!(matches!(in_file, Tokens::File(_)), bytes.len() % 64 == 6, "of many bytes");
            let mut hashes = Vec::new();
            for tokens in [tokens, in_file] {
                let mut out = [0; 4];
                tokens.copy(2, &mut out)?;
                tokens.check_unchanged()?;
                assert_eq!((tokens.len(), out), (6, [10, 1, 2, 3]));
                assert_eq!(tokens.find_outside(10, None)?, Some((2, 10)));
                assert_eq!(tokens.find_outside(10, Some(10))?, None);
                let mut hash = Sha256::new();
                tokens.hash_into(&[2, 3], &mut hash)?;
                hashes.push(hash.finalize());
            }
            assert_eq!(hashes[0], hashes[1]);
        }
        let negative = open(&array(NpyDtype::I32, &[2], &[0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]))?.into_tokens()?;
        assert_eq!(negative.find_outside(5, None)?, Some((0, -1)));
        Ok(())
    }

    #[test]
    fn headers_of_numpy_2() {
        let expect = |text: &str, dtype, shape: &[usize]| {
            let bytes = header(dtype, shape);
            assert_eq!(bytes.len() % 64, 0);
            assert_eq!(&bytes[..10], [&MAGIC[..], &[1, 0], &((bytes.len() - 10) as u16).to_le_bytes()].concat());
            assert_eq!(std::str::from_utf8(&bytes[10..]).map(str::trim_end), Ok(text));
        };
        expect("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 81), }", NpyDtype::U8, &[3, 81]);
        expect("{'descr': '<i4', 'fortran_order': False, 'shape': (1001001,), }", NpyDtype::I32, &[1_001_001]);
    }

    #[test]
    fn bad_files_are_refused() {
        let good = array(NpyDtype::U8, &[2, 3], &[1; 6]);
        assert!(message(b"").contains("not a .npy file"));
        assert!(message(&good[..60]).contains("cut off"));
        assert!(message(&good[..good.len() - 1]).contains("damaged"));
        assert!(message(&[&good[..], &[0]].concat()).contains("damaged"));
        let with =
            |text: &str| [&b"\x93NUMPY\x01\x00"[..], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
        let huge = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({0}, {0}), }}", u64::MAX / 3);
        assert!(message(&with(&huge)).contains("impossible shape"));
        let big = "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000, 81), }";
        assert!(message(&with(big)).contains("damaged"));
        assert!(message(&with("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }")).contains("element type"));
        assert!(message(&with("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }")).contains("element type"));
        assert!(message(&with("{'descr': '|u1', 'fortran_order': True, 'shape': (1, 1), }")).contains("by columns"));
        assert!(message(&with("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }")).contains("shape holds"));
        assert!(message(&with("{'descr': '|u1', 'shape': (1,), }")).contains("fortran_order"));
        assert!(message(&with(&"(".repeat(60_000))).contains("lacks 'descr'"));
        assert!(message(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("too long for a dataset"));
        assert!(message(b"\x93NUMPY\x09\x00\x10\x00    ").contains("unknown"));
    }

    /// Mutated files are refused or read; either way nothing crashes and no claimed size is believed.
    #[test]
    fn mutated_files_do_no_harm() -> Result<()> {
        let good = array(NpyDtype::I32, &[2, 3], &[1; 24]);
        let mut rng = crate::rng::stream(crate::rng::Purpose::Examples, 11, 0, 0);
        let mut refused = 0;
        let file = tempfile::NamedTempFile::new()?;
        for _ in 0..2000 {
            let mut bytes = good.clone();
            for _ in 0..=crate::rng::below(&mut rng, 3) {
                let at = crate::rng::below(&mut rng, bytes.len() as u32) as usize;
                bytes[at] = crate::rng::below(&mut rng, 256) as u8;
            }
            // Overwritten in place: truncating makes some file systems flush each time.
            std::os::unix::fs::FileExt::write_all_at(file.as_file(), &bytes, 0)?;
            match NpyFile::open(file.path()) {
                Ok(file) => assert_eq!(file.to_i32()?.len(), file.shape().iter().product::<usize>()),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 500, "only {refused} of 2000 mutations were noticed");
        Ok(())
    }
}
