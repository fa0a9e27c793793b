//! Where a model computes, and which faster forms of its work it may take there.

use std::env;

use tch::Device;

use super::Runtime;

/// Faster forms of a model's work. Each of them needs a GPU; where one cannot be had, the plain form is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceleration {
    /// Fused CUDA kernels for bf16.
    pub kernels: bool,
    /// Matrix products with the algorithm that is fastest in a trial, instead of cuBLAS's choice. Two trials may end with
    /// different algorithms, which differ in the order of their sums. With fused kernels only.
    pub tuned_products: bool,
    /// Launches recorded once as a CUDA graph. With fused kernels only.
    pub graphs: bool,
}

impl Acceleration {
    /// All forms.
    pub const FULL: Self = Self { kernels: true, tuned_products: true, graphs: true };

    /// All forms that the user did not switch off by `HRM_KERNELS=plain`, `HRM_GEMM=torch` or `HRM_GRAPHS=0`.
    pub fn from_env() -> Self {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let is = |name: &str, value: &str| get(name).is_some_and(|v| v == value);
        Self {
            kernels: !is("HRM_KERNELS", "plain"),
            tuned_products: !is("HRM_GEMM", "torch"),
            graphs: !is("HRM_GRAPHS", "0"),
        }
    }
}

/// A device and what may be used there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where tensors are.
    pub device: Device,
    /// What may be used there beside libtorch's own calls.
    pub acceleration: Acceleration,
}

impl From<Device> for Backend {
    fn from(device: Device) -> Self {
        Self { device, acceleration: Acceleration::FULL }
    }
}

impl From<Runtime> for Backend {
    fn from(runtime: Runtime) -> Self {
        Self { device: runtime.device, acceleration: runtime.acceleration }
    }
}

#[cfg(test)]
mod tests {
    use super::Acceleration;

    #[test]
    fn each_variable_switches_one_form_off() {
        let with = |set: &str, to: &str| Acceleration::from_variables(|name| (name == set).then(|| to.to_owned()));
        let full = Acceleration::FULL;
        assert_eq!(with("", ""), full);
        assert_eq!(with("HRM_KERNELS", "plain"), Acceleration { kernels: false, ..full });
        assert_eq!(with("HRM_GEMM", "torch"), Acceleration { tuned_products: false, ..full });
        assert_eq!(with("HRM_GRAPHS", "0"), Acceleration { graphs: false, ..full });
        assert_eq!(with("HRM_GRAPHS", "1"), full);
    }
}
