//! `--device auto|cpu|cuda[:N]`.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail};
use log::warn;

use super::{
    driver,
    libtorch::{self, LoadFailure},
};

/// What the user asked to compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DeviceChoice {
    /// The first GPU that works, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number, or an error.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => s
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("'{s}' is not a device: give auto, cpu, cuda or cuda:N")),
        }
    }
}

/// Why no GPU can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaObstacle {
    /// Nothing shows a GPU in this machine.
    NoGpu,
    /// The user hides all GPUs.
    Hidden,
    /// The driver's library does not open or does not start.
    Driver(String),
    /// libtorch's CUDA half does not open; the second entry tells what is wrong with the driver as well.
    Library(LoadFailure, Option<String>),
    /// Everything opens, and torch finds no device.
    NoDevice,
}

/// The GPUs that torch can compute on, or what stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaState {
    /// How many GPUs torch can use, or why none.
    pub usable: Result<usize, CudaObstacle>,
}

impl CudaState {
    /// Looks at this machine. Opens libtorch's CUDA half if nothing did before.
    pub fn probe() -> Self {
        Self { usable: Self::count() }
    }

    fn count() -> Result<usize, CudaObstacle> {
        if driver::hidden_by_user() {
            return Err(CudaObstacle::Hidden);
        }
        // Torch prints warnings of its own where the driver does not start, and opening its CUDA half takes a second:
        // so the driver is asked first.
        let driver = driver::query();
        if driver.is_err() && driver::sign_of_gpu().is_none() {
            return Err(CudaObstacle::NoGpu);
        }
        let broken = driver.err().map(str::to_owned);
        match (libtorch::open_cuda(), broken) {
            (Err(failure), broken) => Err(CudaObstacle::Library(failure.clone(), broken)),
            (Ok(()), Some(why)) => Err(CudaObstacle::Driver(why)),
            (Ok(()), None) => match usize::try_from(tch::Cuda::device_count()) {
                Ok(n) if n > 0 => Ok(n),
                _ => Err(CudaObstacle::NoDevice),
            },
        }
    }

    /// The device for a choice, and the warning that goes with it.
    fn choose(&self, choice: DeviceChoice) -> Result<Chosen> {
        let chosen = |device| Ok(Chosen { device, warning: None });
        match (choice, &self.usable) {
            (DeviceChoice::Cpu, _) => chosen(tch::Device::Cpu),
            (DeviceChoice::Auto, Ok(_)) => chosen(tch::Device::Cuda(0)),
            (DeviceChoice::Auto, Err(CudaObstacle::NoGpu | CudaObstacle::Hidden)) => chosen(tch::Device::Cpu),
            (DeviceChoice::Auto, Err(obstacle)) => Ok(Chosen {
                device: tch::Device::Cpu,
                warning: Some(format!("computing on the CPU, although this machine has an NVIDIA GPU: {obstacle}")),
            }),
            (DeviceChoice::Cuda(n), Ok(count)) if n < *count => chosen(tch::Device::Cuda(n)),
            (DeviceChoice::Cuda(n), Ok(count)) => {
                let range = if *count == 1 { "cuda:0".into() } else { format!("cuda:0 to cuda:{}", count - 1) };
                bail!("--device cuda:{n}: this machine has {count} usable GPU(s): give {range}")
            }
            (DeviceChoice::Cuda(n), Err(obstacle)) => {
                bail!("--device cuda:{n}: {obstacle} (`--device auto` uses the CPU)")
            }
        }
    }
}

#[derive(Debug)]
struct Chosen {
    device: tch::Device,
    warning: Option<String>,
}

impl fmt::Display for CudaObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGpu => write!(f, "no NVIDIA GPU was found in this machine"),
            Self::Hidden => write!(f, "CUDA_VISIBLE_DEVICES hides every GPU"),
            Self::Driver(why) => write!(
                f,
                "the NVIDIA driver (libcuda.so.1) cannot be used ({why}): nvidia-smi must work (a container must \
                 be started with the GPU)"
            ),
            Self::Library(failure, broken) => {
                write!(
                    f,
                    "{} cannot be opened ({}): run `make build CUDA=1`, or put the torch/lib folder of an installed \
                     torch 2.11 with CUDA into LD_LIBRARY_PATH",
                    failure.library, failure.message
                )?;
                match broken {
                    Some(why) => write!(f, "; nor can the NVIDIA driver be used ({why})"),
                    None => Ok(()),
                }
            }
            Self::NoDevice => write!(
                f,
                "{} opens but finds no device: nvidia-smi must list one, with a driver for CUDA 13.0",
                libtorch::CUDA_LIBRARY
            ),
        }
    }
}

impl DeviceChoice {
    /// The device to compute on. `auto` takes the first GPU where one can be used, else the CPU; on a machine that
    /// shows a GPU which cannot be used it warns, with the library at fault and the
    /// command that mends it.
    ///
    /// # Errors
    /// A GPU was asked for by name and cannot be used, or its number is too high.
    pub fn resolve(self) -> Result<tch::Device> {
        if self == Self::Cpu {
            return Ok(tch::Device::Cpu);
        }
        let chosen = CudaState::probe().choose(self)?;
        if let Some(text) = chosen.warning {
            warn!("{text}");
        }
        Ok(chosen.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(usable: Result<usize, CudaObstacle>) -> CudaState {
        CudaState { usable }
    }

    fn missing_cudnn() -> CudaObstacle {
        let failure = LoadFailure {
            library: "libcudnn.so.9".into(),
            message: "libcudnn.so.9: cannot open shared object file".into(),
        };
        CudaObstacle::Library(failure, None)
    }

    #[test]
    fn auto_takes_the_gpu_only_where_it_can_be_used() {
        let with = state(Ok(2)).choose(DeviceChoice::Auto).expect("auto never fails");
        assert_eq!((with.device, with.warning), (tch::Device::Cuda(0), None));
        for quiet in [CudaObstacle::NoGpu, CudaObstacle::Hidden] {
            let without = state(Err(quiet)).choose(DeviceChoice::Auto).expect("auto never fails");
            assert_eq!((without.device, without.warning), (tch::Device::Cpu, None));
        }
    }

    #[test]
    fn auto_warns_in_one_line_with_the_library_and_the_command() {
        for obstacle in [missing_cudnn(), CudaObstacle::Driver("cuInit failed with 100".into()), CudaObstacle::NoDevice]
        {
            let chosen = state(Err(obstacle)).choose(DeviceChoice::Auto).expect("auto never fails");
            assert_eq!(chosen.device, tch::Device::Cpu);
            let warning = chosen.warning.expect("a GPU that cannot be used is worth a warning");
            assert_eq!(warning.lines().count(), 1, "{warning}");
        }
        let warning = state(Err(missing_cudnn())).choose(DeviceChoice::Auto).ok().and_then(|c| c.warning);
        let warning = warning.expect("warned");
        assert!(warning.contains("libcudnn.so.9") && warning.contains("make build CUDA=1"), "{warning}");
    }

    #[test]
    fn a_gpu_asked_for_by_name_must_be_there() {
        let none = state(Err(CudaObstacle::NoGpu)).choose(DeviceChoice::Cuda(0)).expect_err("no GPU").to_string();
        assert!(none.contains("no NVIDIA GPU") && !none.contains('\n'), "{none}");
        let high = state(Ok(2)).choose(DeviceChoice::Cuda(2)).expect_err("only two").to_string();
        assert!(high.contains("has 2 usable GPU(s)") && high.contains("cuda:1"), "{high}");
        let last = state(Ok(2)).choose(DeviceChoice::Cuda(1)).expect("the second of two");
        assert_eq!(last.device, tch::Device::Cuda(1));
        let cpu = state(Err(missing_cudnn())).choose(DeviceChoice::Cpu).expect("the CPU is always there");
        assert_eq!((cpu.device, cpu.warning), (tch::Device::Cpu, None));
    }

    #[test]
    fn spellings() {
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert!("cuda:".parse::<DeviceChoice>().is_err());
        assert!("gpu".parse::<DeviceChoice>().is_err());
    }
}
