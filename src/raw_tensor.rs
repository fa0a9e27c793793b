//! Tensors as bytes: what checkpoint files hold and models are made of, without any libtorch type.

use anyhow::{Result, bail};
use half::{bf16, f16};
use thiserror::Error;

use crate::dtype::Dtype;

/// A dense little-endian row-major tensor in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct RawTensor {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes of the dimensions; none for a scalar.
    pub shape: Vec<usize>,
    /// The elements' bytes.
    pub data: Vec<u8>,
}

/// Why a tensor cannot be a model's weights.
#[derive(Clone, Debug, PartialEq, Error)]
#[allow(missing_docs, reason = "each variant's message says it")]
pub enum BadWeights {
    #[error("{name} is {dtype}, and weights are floating-point numbers: this is no model's checkpoint")]
    NotFloat { name: String, dtype: Dtype },
    #[error(
        "{name} holds NaN or infinite values (the first is element {element}): the model has diverged, or the file is \
         damaged; take an earlier checkpoint"
    )]
    NotFinite { name: String, element: usize },
    #[error("{name} holds {value:e} (element {element}), more than a {dtype} can be: choose a wider --dtype")]
    TooLarge { name: String, element: usize, value: f64, dtype: Dtype },
}

/// Bytes of a dense tensor, none where the product overflows.
pub(crate) fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(dtype.size(), |n, d| n.checked_mul(*d))
}

impl RawTensor {
    /// A tensor from its parts.
    ///
    /// # Errors
    /// Where `data` has not the length that dtype and shape ask for.
    pub fn new(dtype: Dtype, shape: Vec<usize>, data: Vec<u8>) -> Result<Self> {
        if byte_len(dtype, &shape) != Some(data.len()) {
            bail!("{} bytes cannot be a {dtype} tensor of shape {shape:?}", data.len());
        }
        Ok(Self { dtype, shape, data })
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// The same values in another floating-point type, rounded to nearest, ties to even; f64 reaches a 16-bit type by
    /// way of f32, as it does in torch. A tensor that is not floating point, or has the type already, is returned
    /// unchanged.
    pub fn to_float(&self, dtype: Dtype) -> Self {
        if !self.dtype.is_float() || !dtype.is_float() || self.dtype == dtype {
            return self.clone();
        }
        let mut data = Vec::with_capacity(self.numel() * dtype.size());
        for x in self.floats() {
            match dtype {
                Dtype::F64 => data.extend(x.to_le_bytes()),
                Dtype::F32 => data.extend((x as f32).to_le_bytes()),
                // Not `from_f64`, which drops the lowest 32 bits before it rounds.
                Dtype::F16 => data.extend(f16::from_f32(x as f32).to_le_bytes()),
                _ => data.extend(bf16::from_f32(x as f32).to_le_bytes()),
            }
        }
        Self { dtype, shape: self.shape.clone(), data }
    }

    /// Whether a model that computes in `dtype` can have it as weights.
    ///
    /// # Errors
    /// Elements that are no floating-point numbers, are NaN or infinite, or would be infinite as `dtype`.
    pub fn check_weights(&self, name: &str, dtype: Dtype) -> Result<(), BadWeights> {
        let name = || name.to_owned();
        if !self.dtype.is_float() {
            return Err(BadWeights::NotFloat { name: name(), dtype: self.dtype });
        }
        // From here on a value is rounded to infinity; a NaN is not below it.
        let limit = match dtype {
            Dtype::F16 => (2.0 - 2f64.powi(-11)) * 2f64.powi(15),
            Dtype::Bf16 => (2.0 - 2f64.powi(-8)) * 2f64.powi(127),
            Dtype::F32 => (2.0 - 2f64.powi(-24)) * 2f64.powi(127),
            _ => f64::INFINITY,
        };
        let bad = |x: &f64| !matches!(x.abs().partial_cmp(&limit), Some(std::cmp::Ordering::Less));
        match self.floats().enumerate().find(|(_, x)| bad(x)) {
            Some((element, value)) if value.is_finite() => {
                Err(BadWeights::TooLarge { name: name(), element, value, dtype })
            }
            Some((element, _)) => Err(BadWeights::NotFinite { name: name(), element }),
            None => Ok(()),
        }
    }

    /// The elements of a tensor of whole numbers or truth values; none of any other.
    pub fn integers(&self) -> Option<Vec<i64>> {
        let value: fn(&[u8]) -> i64 = match self.dtype {
            Dtype::U8 | Dtype::Bool => |x| x.first().copied().unwrap_or_default().into(),
            Dtype::I8 => |x| x.first().map_or(0, |&x| x.cast_signed().into()),
            Dtype::I16 => |x| x.first_chunk().map_or(0, |&x| i16::from_le_bytes(x).into()),
            Dtype::I32 => |x| x.first_chunk().map_or(0, |&x| i32::from_le_bytes(x).into()),
            Dtype::I64 => |x| x.first_chunk().map_or(0, |&x| i64::from_le_bytes(x)),
            Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16 => return None,
        };
        Some(self.data.chunks_exact(self.dtype.size()).map(value).collect())
    }

    /// The elements of a floating-point tensor.
    fn floats(&self) -> impl Iterator<Item = f64> + '_ {
        self.data.chunks_exact(self.dtype.size()).filter_map(|element| match (self.dtype, element) {
            (Dtype::F64, &[a, b, c, d, e, f, g, h]) => Some(f64::from_le_bytes([a, b, c, d, e, f, g, h])),
            (Dtype::F32, &[a, b, c, d]) => Some(f32::from_le_bytes([a, b, c, d]).into()),
            (Dtype::F16, &[a, b]) => Some(f16::from_le_bytes([a, b]).into()),
            (Dtype::Bf16, &[a, b]) => Some(bf16::from_le_bytes([a, b]).into()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even() {
        // The last but one is a hair above half-way: only its lowest bit says that it goes up.
        let above_half = f32::from_bits(0x3f80_8001);
        let (half_of_even, half_of_odd) = (f32::from_bits(0x3f80_8000), f32::from_bits(0x3f81_8000));
        let values = [1.0f32, half_of_even, half_of_odd, -2.5, above_half, f32::INFINITY];
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let rounded = RawTensor::new(Dtype::F32, vec![6], data).unwrap().to_float(Dtype::Bf16);
        let bits: Vec<u16> = rounded.data.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        // 1 + 2^-8 is half-way and goes down to even; 1 + 3*2^-8 is half-way and goes up to even.
        assert_eq!(bits, [0x3f80, 0x3f80, 0x3f82, 0xc020, 0x3f81, 0x7f80]);
    }

    #[test]
    fn widening_is_exact_and_integers_stay() {
        let data = [0x3fc0u16, 0x0001].iter().flat_map(|x| x.to_le_bytes()).collect();
        let wide = RawTensor::new(Dtype::Bf16, vec![2], data).unwrap().to_float(Dtype::F32);
        assert_eq!(wide.data, [1.5f32.to_le_bytes(), f32::from_bits(1 << 16).to_le_bytes()].concat());
        let ints = RawTensor::new(Dtype::U8, vec![2], vec![1, 2]).unwrap();
        assert_eq!(ints.to_float(Dtype::Bf16), ints);
    }

    #[test]
    fn weights_are_finite_floating_point_numbers() {
        let tensor = |values: &[f32]| {
            let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            RawTensor::new(Dtype::F32, vec![values.len()], data).unwrap()
        };
        let name = "w".to_owned();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16] {
                let raw = tensor(&[1.0, bad]).to_float(dtype);
                let found = raw.check_weights("w", Dtype::F32);
                assert_eq!(found, Err(BadWeights::NotFinite { name: name.clone(), element: 1 }), "{bad} as {dtype}");
            }
        }
        for (dtype, fits, beyond) in [
            (Dtype::F32, f64::from(f32::MAX), 3.402_823_57e38),
            (Dtype::Bf16, f64::from(bf16::MAX), f64::from(f32::MAX)),
            (Dtype::F16, 65519.0, 65520.0),
        ] {
            let wide = |x: f64| RawTensor::new(Dtype::F64, vec![1], x.to_le_bytes().to_vec()).unwrap();
            assert_eq!(wide(-fits).check_weights("w", dtype), Ok(()));
            assert_eq!(wide(-fits).to_float(dtype).check_weights("w", dtype), Ok(()), "and it does not overflow");
            let error = BadWeights::TooLarge { name: name.clone(), element: 0, value: beyond, dtype };
            assert_eq!(wide(beyond).check_weights("w", dtype), Err(error));
            assert!(wide(beyond).to_float(dtype).check_weights("w", dtype).is_err());
        }
        for dtype in Dtype::ALL.into_iter().filter(|dtype| !dtype.is_float()) {
            let raw = RawTensor::new(dtype, vec![1], vec![0; dtype.size()]).unwrap();
            let error = BadWeights::NotFloat { name: name.clone(), dtype };
            assert_eq!(raw.check_weights("w", Dtype::F32), Err(error));
        }
    }

    #[test]
    fn lengths_must_agree() {
        assert!(RawTensor::new(Dtype::F32, vec![2], vec![0; 7]).is_err());
        assert!(RawTensor::new(Dtype::F32, vec![usize::MAX, 2], vec![0; 8]).is_err());
        assert!(RawTensor::new(Dtype::F32, vec![], vec![0; 4]).is_ok());
    }
}
