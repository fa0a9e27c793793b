//! Between tensors of files and tensors of libtorch.

use tch::{Device, Kind, Tensor};

use crate::{dtype::Dtype, raw_tensor::RawTensor};

impl From<Dtype> for Kind {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F64 => Self::Double,
            Dtype::F32 => Self::Float,
            Dtype::F16 => Self::Half,
            Dtype::Bf16 => Self::BFloat16,
            Dtype::I64 => Self::Int64,
            Dtype::I32 => Self::Int,
            Dtype::I16 => Self::Int16,
            Dtype::I8 => Self::Int8,
            Dtype::U8 => Self::Uint8,
            Dtype::Bool => Self::Bool,
        }
    }
}

/// A host tensor of the same dtype and shape.
pub fn to_tensor(raw: &RawTensor) -> Tensor {
    let shape: Vec<i64> = raw.shape.iter().map(|&n| n as i64).collect();
    Tensor::from_data_size(&raw.data, &shape, raw.dtype.into())
}

/// The bytes of a tensor, copied to the host.
///
/// # Panics
/// A kind that is no [`Dtype`], such as a complex one: no model has it.
pub fn to_raw(tensor: &Tensor) -> RawTensor {
    let tensor = tensor.to_device(Device::Cpu).contiguous();
    let kind = tensor.kind();
    let dtype = Dtype::ALL.into_iter().find(|&dtype| Kind::from(dtype) == kind);
    let dtype = dtype.unwrap_or_else(|| panic!("{kind:?} is not a supported dtype"));
    let mut data = vec![0u8; tensor.numel() * dtype.size()];
    tensor.copy_data_u8(&mut data, tensor.numel());
    RawTensor { dtype, shape: tensor.size().iter().map(|&n| n as usize).collect(), data }
}
