//! The pickle of a `torch.save` file, read by a machine that can build a dictionary of tensors and nothing else.
//!
//! Python's pickle is a program that may call any function. This interpreter knows a fixed list of names; asking for
//! another one is an error that says which, and nothing is ever called. Objects live in flat arenas and are referred
//! to by index, so that neither deep nor cyclic structures recurse, and every opcode adds a bounded amount of memory.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::dtype::Dtype;

/// The largest pickle that is read; the one of a 27M-parameter model has 10 kB.
pub(super) const MAX_PICKLE: u64 = 4 << 20;
/// torch's own limit on dimensions.
const MAX_RANK: usize = 64;

/// A typed array inside the archive: entry `<root>/data/<key>`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StorageRef<'a> {
    pub dtype: Dtype,
    pub key: &'a str,
    /// In elements.
    pub numel: usize,
}

/// A view into a storage, in elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorRef<'a> {
    pub storage: StorageRef<'a>,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
}

/// The dictionary in the file's order.
#[derive(Debug)]
pub(super) struct StateDict<'a> {
    pub tensors: Vec<TensorRef<'a>>,
    /// Name and index into `tensors`.
    pub entries: Vec<(&'a str, usize)>,
}

/// The names that a checkpoint may ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Global {
    OrderedDict,
    Size,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
    Storage(Dtype),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            ("torch._utils", "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensorV2,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", storage) => Self::Storage(match storage.strip_suffix("Storage")? {
                "Double" => Dtype::F64,
                "Float" => Dtype::F32,
                "Half" => Dtype::F16,
                "BFloat16" => Dtype::Bf16,
                "Long" => Dtype::I64,
                "Int" => Dtype::I32,
                "Short" => Dtype::I16,
                "Char" => Dtype::I8,
                "Byte" => Dtype::U8,
                "Bool" => Dtype::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// A value; the indices point into the machine's arenas.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Str(&'a str),
    Tuple(usize),
    List,
    Dict(usize),
    Global(Global),
    Storage(StorageRef<'a>),
    Tensor(usize),
}

impl Value<'_> {
    fn what(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool => "a truth value",
            Self::Int(_) => "an integer",
            Self::Float => "a float",
            Self::Str(_) => "text",
            Self::Tuple(_) => "a tuple",
            Self::List => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a function",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    tuples: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    tensors: Vec<TensorRef<'a>>,
}

/// Reads a pickle whose result is a dictionary from names to tensors.
///
/// # Errors
/// Anything else: a name that is not on the list, an opcode that no such file needs, truncation, a value of a wrong
/// type, sizes that do not fit. The error gives the byte where it happened.
pub(super) fn read_state_dict(input: &[u8]) -> Result<StateDict<'_>> {
    ensure!(input.len() as u64 <= MAX_PICKLE, "the pickle has {} bytes, at most {MAX_PICKLE} are read", input.len());
    let mut machine = Machine {
        input,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        tuples: Vec::new(),
        dicts: Vec::new(),
        tensors: Vec::new(),
    };
    let result = machine.run();
    let at = machine.at;
    machine.finish(result.with_context(|| format!("pickle, byte {at}"))?)
}

impl<'a> Machine<'a> {
    fn finish(self, result: Value<'a>) -> Result<StateDict<'a>> {
        let Value::Dict(root) = result else {
            bail!("the file holds {}, expected a dictionary of tensors (a state_dict)", result.what())
        };
        let pairs = self.dicts.get(root).map(Vec::as_slice).unwrap_or_default();
        let mut entries = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            match (name, value) {
                (Value::Str(name), Value::Tensor(index)) => entries.push((*name, *index)),
                (Value::Str(name), other) => bail!("entry '{}' is {}, expected a tensor", show(name), other.what()),
                (other, _) => bail!("a name in the dictionary is {}, expected text", other.what()),
            }
        }
        Ok(StateDict { tensors: self.tensors, entries })
    }

    fn run(&mut self) -> Result<Value<'a>> {
        loop {
            let [opcode] = self.take()?;
            if opcode == b'.' {
                let result = self.pop()?;
                ensure!(self.stack.is_empty() && self.marks.is_empty(), "the pickle leaves values on the stack");
                return Ok(result);
            }
            let known = self.stack_opcode(opcode)?
                || self.literal_opcode(opcode)?
                || self.container_opcode(opcode)?
                || self.memo_opcode(opcode)?
                || self.object_opcode(opcode)?;
            ensure!(known, "opcode 0x{opcode:02x} is not allowed: no checkpoint needs it");
        }
    }

    /// Carries out an opcode of the protocol or of the bare stack; false for any other opcode, as the next functions.
    fn stack_opcode(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            0x80 => {
                let [version] = self.take()?;
                ensure!(version <= 5, "pickle protocol {version} is unknown");
            }
            0x95 => {
                self.take::<8>()?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Pushes a number, a truth value, text or None.
    fn literal_opcode(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool),
            b'K' => {
                let [n] = self.take()?;
                self.stack.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.take()?);
                self.stack.push(Value::Int(n.into()));
            }
            b'J' => {
                let n = i32::from_le_bytes(self.take()?);
                self.stack.push(Value::Int(n.into()));
            }
            0x8a => self.long()?,
            b'G' => {
                self.take::<8>()?;
                self.stack.push(Value::Float);
            }
            0x8c => {
                let [n] = self.take()?;
                self.text(n.into())?;
            }
            b'X' => {
                let n = u32::from_le_bytes(self.take()?);
                self.text(n.into())?;
            }
            0x8d => {
                let n = u64::from_le_bytes(self.take()?);
                self.text(n)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Makes or fills a tuple, a list or a dictionary.
    fn container_opcode(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            b')' => self.tuple(Vec::new()),
            0x85..=0x87 => {
                let n = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(n).filter(|s| *s >= self.floor());
                let items = self.stack.split_off(start.ok_or_else(too_short)?);
                self.tuple(items);
            }
            b't' => {
                let items = self.pop_mark()?;
                self.tuple(items);
            }
            b']' => self.stack.push(Value::List),
            b'l' => {
                self.pop_mark()?;
                self.stack.push(Value::List);
            }
            b'a' => {
                self.pop()?;
                self.expect_list()?;
            }
            b'e' => {
                self.pop_mark()?;
                self.expect_list()?;
            }
            b'}' => self.dict(Vec::new()),
            b'd' => {
                let pairs = pairs(self.pop_mark()?)?;
                self.dict(pairs);
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![(key, value)])?;
            }
            b'u' => {
                let pairs = pairs(self.pop_mark()?)?;
                self.set_items(pairs)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Remembers a value or recalls one.
    fn memo_opcode(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            b'q' => {
                let [n] = self.take()?;
                self.remember(n.into())?;
            }
            b'r' => {
                let n = u32::from_le_bytes(self.take()?);
                self.remember(n)?;
            }
            0x94 => {
                let n = u32::try_from(self.memo.len())?;
                self.remember(n)?;
            }
            b'h' => {
                let [n] = self.take()?;
                self.recall(n.into())?;
            }
            b'j' => {
                let n = u32::from_le_bytes(self.take()?);
                self.recall(n)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Names a function, calls it, or refers to a storage.
    fn object_opcode(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Str(module), Value::Str(name)) = (module, name) else {
                    bail!("a global's name is not text")
                };
                self.global(module, name)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.stack.push(Value::Storage(storage));
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let result = self.build(function, arguments)?;
                self.stack.push(result);
            }
            // The state of an object: here the `_metadata` of a state_dict, which nothing needs.
            b'b' => {
                let state = self.pop()?;
                let (Value::Dict(_), Value::Dict(_)) = (self.top()?, state) else {
                    bail!("only a dictionary may carry attributes")
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| ended())
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).ok_or_else(ended)?;
        let bytes = self.input.get(self.at..end).ok_or_else(ended)?;
        self.at = end;
        Ok(bytes)
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let n = rest.iter().take(1024).position(|b| *b == b'\n').context("a name is not terminated")?;
        let text = std::str::from_utf8(self.bytes(n)?).context("a name is not UTF-8")?;
        self.bytes(1)?;
        Ok(text)
    }

    fn text(&mut self, n: u64) -> Result<()> {
        let bytes = self.bytes(usize::try_from(n)?)?;
        let text = std::str::from_utf8(bytes).context("text is not UTF-8")?;
        self.stack.push(Value::Str(text));
        Ok(())
    }

    /// A little-endian two's-complement integer with a length byte.
    fn long(&mut self) -> Result<()> {
        let [n] = self.take()?;
        ensure!(n <= 8, "an integer of {n} bytes is out of range");
        let bytes = self.bytes(n.into())?;
        let sign = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if sign { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    /// Below this height the stack belongs to what stands before the last open mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        ensure!(self.stack.len() > self.floor(), too_short());
        self.stack.pop().ok_or_else(too_short)
    }

    fn top(&self) -> Result<Value<'a>> {
        ensure!(self.stack.len() > self.floor(), too_short());
        self.stack.last().copied().ok_or_else(too_short)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let start = self.marks.pop().context("no mark on the stack")?;
        ensure!(start <= self.stack.len(), too_short());
        Ok(self.stack.split_off(start))
    }

    fn tuple(&mut self, items: Vec<Value<'a>>) {
        self.stack.push(Value::Tuple(self.tuples.len()));
        self.tuples.push(items);
    }

    fn dict(&mut self, pairs: Vec<(Value<'a>, Value<'a>)>) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(pairs);
    }

    fn set_items(&mut self, pairs: Vec<(Value<'a>, Value<'a>)>) -> Result<()> {
        let Value::Dict(index) = self.top()? else { bail!("items are set on {}", self.top()?.what()) };
        self.dicts.get_mut(index).context("no such dictionary")?.extend(pairs);
        Ok(())
    }

    fn expect_list(&self) -> Result<()> {
        ensure!(self.top()? == Value::List, "items are appended to {}", self.top()?.what());
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<()> {
        let value = self.memo.get(&slot).with_context(|| format!("memo {slot} is empty"))?;
        self.stack.push(*value);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = Global::find(module, name).ok_or_else(|| {
            anyhow!(
                "the file refers to `{}.{}`, which no checkpoint needs; it was refused and nothing was executed. Do not \
                 load this file with anything else unless you trust its origin",
                show(module),
                show(name)
            )
        })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn items(&self, value: Value<'a>, what: &str) -> Result<&[Value<'a>]> {
        match value {
            Value::Tuple(index) => Ok(self.tuples.get(index).map(Vec::as_slice).unwrap_or_default()),
            other => bail!("{what}: expected a tuple, found {}", other.what()),
        }
    }

    /// `('storage', FloatStorage, key, location, numel)`
    fn storage(&self, id: Value<'a>) -> Result<StorageRef<'a>> {
        match self.items(id, "storage")? {
            [
                Value::Str("storage"),
                Value::Global(Global::Storage(dtype)),
                Value::Str(key),
                Value::Str(_location),
                Value::Int(numel),
            ] => Ok(StorageRef { dtype: *dtype, key, numel: usize::try_from(*numel).context("storage: its size")? }),
            _ => bail!("a storage is not described as ('storage', type, key, location, size)"),
        }
    }

    fn build(&mut self, function: Value<'a>, arguments: Value<'a>) -> Result<Value<'a>> {
        let Value::Global(function) = function else { bail!("{} is called", function.what()) };
        let items = self.items(arguments, "arguments")?;
        match (function, items) {
            (Global::OrderedDict, []) => {
                self.dicts.push(Vec::new());
                Ok(Value::Dict(self.dicts.len() - 1))
            }
            (Global::Size, [sizes @ Value::Tuple(_)]) => Ok(*sizes),
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => Ok(*tensor),
            (
                Global::RebuildTensorV2 | Global::RebuildTensor,
                [Value::Storage(storage), Value::Int(offset), shape, stride, ..],
            ) => {
                let tensor = TensorRef {
                    storage: *storage,
                    offset: usize::try_from(*offset).context("a tensor's offset")?,
                    shape: self.sizes(*shape, "shape")?,
                    stride: self.sizes(*stride, "stride")?,
                };
                ensure!(tensor.shape.len() == tensor.stride.len(), "shape and stride differ in length");
                self.tensors.push(tensor);
                Ok(Value::Tensor(self.tensors.len() - 1))
            }
            (function, _) => bail!("{function:?} is called with arguments that it does not take"),
        }
    }

    fn sizes(&self, value: Value<'a>, what: &str) -> Result<Vec<usize>> {
        let items = self.items(value, what)?;
        ensure!(items.len() <= MAX_RANK, "{what}: {} dimensions, at most {MAX_RANK} are read", items.len());
        let size = |v: &Value| match v {
            Value::Int(n) => usize::try_from(*n).with_context(|| format!("{what}: {n} is out of range")),
            other => bail!("{what}: expected integers, found {}", other.what()),
        };
        items.iter().map(size).collect()
    }
}

fn pairs<'a>(items: Vec<Value<'a>>) -> Result<Vec<(Value<'a>, Value<'a>)>> {
    ensure!(items.len().is_multiple_of(2), "a dictionary's items come in pairs");
    Ok(items.chunks_exact(2).map(|p| (p[0], p[1])).collect())
}

fn ended() -> anyhow::Error {
    anyhow!("the pickle ends too early")
}

fn too_short() -> anyhow::Error {
    anyhow!("the stack is too short")
}

/// Foreign text for an error message: shortened, control characters escaped.
pub(super) fn show(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect()
}
