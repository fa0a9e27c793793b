//! Reading golden files (tests/golden, made by upstream's own modules; see its MANIFEST.json) and comparing tensors.
#![allow(dead_code, reason = "each test program uses a part")]

use std::{collections::HashMap, path::PathBuf};

use hrm::{
    checkpoint::RawTensor,
    config::ArchConfig,
    model::{Dims, ModelConfig},
};
use safetensors::SafeTensors;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// `HRM_GOLDEN` names the folder where a test binary runs away from its sources.
pub fn golden(path: &str) -> PathBuf {
    let root = std::env::var_os("HRM_GOLDEN").map(PathBuf::from);
    root.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).join(path)
}

/// The CPU, or the GPU with `HRM_TEST_DEVICE=cuda`.
pub fn device() -> Device {
    match std::env::var("HRM_TEST_DEVICE").as_deref() {
        Ok("cuda") => {
            hrm::runtime::prepare(hrm::runtime::DeviceChoice::Cuda(0), false);
            Device::Cuda(0)
        }
        _ => Device::Cpu,
    }
}

pub fn json(path: &str) -> Value {
    let at = golden(path);
    serde_json::from_slice(&std::fs::read(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display()))).unwrap()
}

/// A golden safetensors file, by name, in the file's order.
pub fn raw_tensors(path: &str) -> Vec<(String, RawTensor)> {
    let bytes = std::fs::read(golden(path)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let dtype = view.dtype().try_into().unwrap();
            (name.to_string(), RawTensor { dtype, shape: view.shape().to_vec(), data: view.data().to_vec() })
        })
        .collect()
}

pub struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    pub fn load(path: &str) -> Self {
        Self(raw_tensors(path).into_iter().map(|(n, t)| (n, hrm::model::to_tensor(&t))).collect())
    }

    pub fn get(&self, name: &str) -> Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor {name}")).shallow_clone()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

/// The model config of a golden case (arch.* keys and dataset sizes in one object).
pub fn config(case: &Value) -> ModelConfig {
    let c = &case["config"];
    let mut arch: ArchConfig = serde_json::from_value(c.clone()).unwrap();
    if let Some(loss) = case["loss_type"].as_str() {
        arch.loss.loss_type = serde_json::from_value(Value::from(loss)).unwrap();
    }
    let int = |k: &str| c[k].as_i64().unwrap_or_else(|| panic!("config.{k}"));
    let dims = Dims {
        seq_len: int("seq_len"),
        vocab_size: int("vocab_size"),
        num_puzzle_identifiers: int("num_puzzle_identifiers"),
    };
    ModelConfig::new(&arch, dims).unwrap()
}

pub fn f64s(t: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(t.to_kind(Kind::Double).contiguous().view([-1])).unwrap()
}

/// |a - b| <= atol + rtol |b| everywhere.
#[track_caller]
pub fn assert_close(what: &str, found: &Tensor, wanted: &Tensor, atol: f64, rtol: f64) {
    assert_eq!(found.size(), wanted.size(), "{what}: shape");
    let (a, b) = (found.to_kind(Kind::Double), wanted.to_kind(Kind::Double));
    let excess = ((&a - &b).abs() - b.abs() * rtol - atol).max().double_value(&[]);
    let worst = (&a - &b).abs().max().double_value(&[]);
    assert!(excess <= 0.0, "{what}: differs by up to {worst:e} (atol {atol:e}, rtol {rtol:e})");
}

#[track_caller]
pub fn assert_near(what: &str, found: f64, wanted: f64, atol: f64) {
    assert!((found - wanted).abs() <= atol, "{what}: {found} but upstream has {wanted} (tolerance {atol:e})");
}
