//! Tensors as bytes: what checkpoint files hold and models are made of, without any libtorch type.

use anyhow::{Result, bail};
use half::{bf16, f16};

use crate::dtype::Dtype;

/// A dense little-endian row-major tensor in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct RawTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
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
        for element in self.data.chunks_exact(self.dtype.size()) {
            let x: f64 = match (self.dtype, element) {
                (Dtype::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
                (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
                (Dtype::F16, &[a, b]) => f16::from_le_bytes([a, b]).into(),
                (_, &[a, b]) => bf16::from_le_bytes([a, b]).into(),
                _ => continue,
            };
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
    fn lengths_must_agree() {
        assert!(RawTensor::new(Dtype::F32, vec![2], vec![0; 7]).is_err());
        assert!(RawTensor::new(Dtype::F32, vec![usize::MAX, 2], vec![0; 8]).is_err());
        assert!(RawTensor::new(Dtype::F32, vec![], vec![0; 4]).is_ok());
    }
}
