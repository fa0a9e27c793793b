//! Configuration: upstream's files and texts, byte for byte where it writes them itself.

mod common;

use std::{fs, path::Path};

use common::snapshot::Transcript;
use hrm::config::{LossType, TrainConfig, resolve};
use hrm::dtype::Dtype;
use tempfile::TempDir;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

fn overrides(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|t| (*t).to_owned()).collect()
}

fn config(texts: &[&str]) -> TrainConfig {
    resolve(None, &overrides(texts)).unwrap_or_else(|e| panic!("{texts:?}: {e:#}")).config
}

fn error(texts: &[&str]) -> String {
    match resolve(None, &overrides(texts)) {
        Ok(_) => panic!("{texts:?} was accepted"),
        Err(e) => format!("{e:#}"),
    }
}

/// A folder in upstream's layout, the same keys in other words.
fn upstream_layout() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("arch")).unwrap();
    let main = "# a comment\ndefaults:\n  - arch: hrm_v1\n  - _self_\n\nhydra:\n  output_subdir: null\n\n\
                data_path: data/arc-aug-1000\nglobal_batch_size: 768\nepochs: 100000\neval_interval: 10000\n\
                checkpoint_every_eval: True\nlr: 1e-4\nlr_min_ratio: 1.0\nlr_warmup_steps: 2000\nbeta1: 0.9\n\
                beta2: 0.95\nweight_decay: 0.1\npuzzle_emb_weight_decay: 0.1\npuzzle_emb_lr: 1e-2\n";
    let arch = "name: hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1\nloss:\n  name: losses@ACTLossHead\n  \
                loss_type: stablemax_cross_entropy\nhalt_exploration_prob: 0.1\nhalt_max_steps: 16\nH_cycles: 2\n\
                L_cycles: 2\nH_layers: 4\nL_layers: 4\nhidden_size: 512\nnum_heads: 8  # a comment\nexpansion: 4\n\
                puzzle_emb_ndim: ${.hidden_size}\npos_encodings: rope\n";
    fs::write(dir.path().join("cfg_pretrain.yaml"), main).unwrap();
    fs::write(dir.path().join("arch/hrm_v1.yaml"), arch).unwrap();
    dir
}

#[test]
fn golden_configurations_round_trip_byte_for_byte() {
    for file in [
        "e2e/all_config.yaml",
        "e2e/run_b/all_config.yaml",
        "checkpoint/tiny ACT-torch/Model gold fish/all_config.yaml",
    ] {
        let text = fs::read_to_string(Path::new(GOLDEN).join(file)).unwrap();
        let read = TrainConfig::from_checkpoint_yaml(&text).unwrap();
        assert!(read.warnings.is_empty(), "{file}: {:?}", read.warnings);
        assert_eq!(read.config.to_yaml().unwrap(), text, "{file}");
    }
}

#[test]
fn written_configurations_read_back_the_same() {
    let mut config =
        config(&["lr=1e-5", "eval_interval=null", "eval_save_outputs=[inputs,logits]", "seed=18446744073709551615"]);
    config.arch.forward_dtype = Some(Dtype::F32);
    config.arch.rms_norm_eps = Some(1e-6);
    for name in ["plain", "2024", "no", "1e5", "a: b #c", "caf\u{e9}", "it's", "tab\there", "", "null", "~", "on"] {
        config.project_name = Some(name.into());
        config.checkpoint_path = Some(format!("checkpoints/{name}/{}", "long words ".repeat(20)));
        let text = config.to_yaml().unwrap();
        let read = TrainConfig::from_checkpoint_yaml(&text).unwrap_or_else(|e| panic!("{name}: {e:#}\n{text}"));
        assert_eq!(read.config, config, "{text}");
        assert!(text.contains("lr: 1.0e-05\n"), "{text}");
        assert!(text.contains("eval_save_outputs:\n- inputs\n- logits\n"), "{text}");
        assert!(text.contains("eval_interval: null\n"), "{text}");
    }
}

#[test]
fn checkpoint_files_may_lack_keys_and_have_unknown_ones() {
    let text = "arch:\n  hidden_size: 64\n  num_heads: 4\n  causal: false\nlr: 0.1\nlr_schedul: x\nextra:\n  a: 1\n";
    let read = TrainConfig::from_checkpoint_yaml(text).unwrap();
    assert_eq!(read.config.arch.hidden_size, 64);
    assert_eq!(read.config.arch.puzzle_emb_ndim, 0, "upstream's class has 0 where the file has none");
    assert_eq!(read.config.arch.dtype(), Dtype::Bf16);
    assert_eq!((read.config.arch.norm_eps(), read.config.arch.theta()), (1e-5, 10_000.0));
    assert_eq!(read.config.beta2, 0.95);
    let warnings = read.warnings.join("\n");
    assert_eq!(read.warnings.len(), 3, "{warnings}");
    for key in ["arch.causal", "lr_schedul", "extra"] {
        assert!(warnings.contains(key), "{warnings}");
    }
}

#[test]
fn damaged_checkpoint_files_are_errors() {
    let bomb = format!("a: &a [x]\nb: &b [{}]\nc: [{}]\n", "*a,".repeat(99), "*b,".repeat(99));
    let deep = format!("a: {}{}\n", "[".repeat(5000), "]".repeat(5000));
    for text in
        ["", "- 1\n", "arch: 3\n", "lr: fast\n", "arch: {hidden_size: 1.5}\n", "a: [\n", "lr: .nan\n", "lr: 1\nlr: 2\n"]
            .into_iter()
            .chain([bomb.as_str(), deep.as_str()])
    {
        let shown: String = text.chars().take(40).collect();
        assert!(TrainConfig::from_checkpoint_yaml(text).is_err(), "{shown}");
    }
}

#[test]
fn upstreams_layout_loads_unchanged() {
    let dir = upstream_layout();
    let file = dir.path().join("cfg_pretrain.yaml");
    let read = resolve(Some(&file), &[]).unwrap().config;
    let wanted = TrainConfig { data_path: "data/arc-aug-1000".into(), ..TrainConfig::default() };
    assert_eq!(read, wanted);
    // The interpolation follows an override of the command line.
    let small = resolve(Some(&file), &overrides(&["arch.hidden_size=128"])).unwrap().config;
    assert_eq!(small.arch.puzzle_emb_ndim, 128);
    let set = resolve(Some(&file), &overrides(&["arch.hidden_size=128", "arch.puzzle_emb_ndim=64"])).unwrap().config;
    assert_eq!(set.arch.puzzle_emb_ndim, 64);
}

#[test]
fn the_defaults_list_decides_what_wins() {
    let dir = upstream_layout();
    let write = |text: &str| {
        let path = dir.path().join("mine.yaml");
        fs::write(&path, text).unwrap();
        path
    };
    let load = |path: &Path, o: &[&str]| resolve(Some(path), &overrides(o)).map(|r| r.config.arch.hidden_size);
    let own_last = write("defaults: [{arch: hrm_v1}, _self_]\narch: {hidden_size: 64}\n");
    assert_eq!(load(&own_last, &[]).unwrap(), 64);
    let own_first = write("defaults: [_self_, {arch: hrm_v1}]\narch: {hidden_size: 64}\n");
    assert_eq!(load(&own_first, &[]).unwrap(), 512);
    fs::write(dir.path().join("arch/other.yaml"), "hidden_size: 96\n").unwrap();
    let listed = write("defaults:\n- arch: hrm_v1\n- _self_\n");
    assert_eq!(load(&listed, &["arch=other"]).unwrap(), 96);
    let missing = write("defaults:\n- arch: absent\n");
    assert!(format!("{:#}", load(&missing, &[]).unwrap_err()).contains("arch/absent.yaml"));
    for text in ["defaults:\n- arch: ../secret\n", "defaults:\n- data: x\n", "defaults: 3\n"] {
        assert!(load(&write(text), &[]).is_err(), "{text}");
    }
}

#[test]
fn a_configuration_file_refuses_unknown_keys_and_wrong_types() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    let mut said = Transcript::new(dir.path());
    for text in [
        "arch:\n  hiden_size: 64\n",
        "epoch: 3\n",
        "epochs: many\n",
        "lr: [1]\n",
        "arch: {loss: {loss_type: hinge}}\n",
        "- 1\n",
    ] {
        fs::write(&path, text).unwrap();
        said.add(text.trim_end(), &format!("{:#}", resolve(Some(&path), &[]).unwrap_err()));
    }
    let absent = dir.path().join("absent.yaml");
    said.add("no file", &format!("{:#}", resolve(Some(&absent), &[]).unwrap_err()));
    said.matches("a_configuration_file_refuses_unknown_keys_and_wrong_types");
}

#[test]
fn overrides_in_upstreams_form() {
    let c = config(&[
        "arch.hidden_size=256",
        "lr=1e-4",
        "eval_interval=null",
        "+project_name=x",
        "++run_name='my run'",
        "eval_save_outputs=[inputs,logits]",
        "arch.loss.loss_type=softmax_cross_entropy",
        "checkpoint_every_eval=False",
        "epochs=2e4",
        "arch.forward_dtype=float32",
        "checkpoint_path=checkpoints/7",
    ]);
    assert_eq!((c.arch.hidden_size, c.arch.puzzle_emb_ndim, c.lr), (256, 256, 1e-4));
    assert_eq!((c.eval_interval, c.epochs), (None, 20_000));
    assert_eq!((c.project_name.as_deref(), c.run_name.as_deref()), (Some("x"), Some("my run")));
    assert_eq!(c.eval_save_outputs, ["inputs", "logits"]);
    assert_eq!((c.arch.loss.loss_type, c.checkpoint_every_eval), (LossType::Softmax, false));
    assert_eq!(c.arch.dtype(), Dtype::F32);
    assert_eq!(config(&["project_name=2024"]).project_name.as_deref(), Some("2024"));
    assert_eq!(config(&["arch.puzzle_emb_ndim=0"]).arch.puzzle_emb_ndim, 0);
    assert_eq!(config(&["lr=1", "lr=2"]).lr, 2.0, "the last one wins");
}

#[test]
fn wrong_overrides_name_the_key_and_what_it_wants() {
    let mut said = Transcript::default();
    for text in [
        "epochs=1.5",
        "epochs=abc",
        "epochs=null",
        "lr=fast",
        "lr=inf",
        "seed=-1",
        "checkpoint_every_eval=maybe",
        "eval_save_outputs=inputs",
        "arch.pos_encodings=alibi",
        "hidden_size=64",
        "arch.presett=sudoku",
        "arch.preset=chess",
        "recipe=chess",
        "epochs",
        "~lr",
        "hydra.run.dir=x",
        "arch=other",
        "arch.puzzle_emb_ndim=${.nothing_here_at_all}",
        "arch.hidden_size=${arch.puzzle_emb_ndim}",
    ] {
        said.add(text, &error(&[text]));
    }
    said.matches("wrong_overrides_name_the_key_and_what_it_wants");
}

#[test]
fn a_bare_run_takes_preset_and_recipe() {
    let bare = resolve(None, &[]).unwrap();
    assert_eq!((bare.config.epochs, bare.config.eval_interval), (40_000, Some(1_000)));
    assert_eq!((bare.config.lr, bare.config.puzzle_emb_lr), (1e-4, 1e-4));
    assert_eq!((bare.config.weight_decay, bare.config.puzzle_emb_weight_decay), (1.0, 1.0));
    assert_eq!((bare.config.global_batch_size, bare.config.arch.hidden_size), (768, 512));
    assert_eq!(bare.taken.len(), 2, "{:?}", bare.taken);
    let some = resolve(None, &overrides(&["seed=1"])).unwrap();
    assert_eq!((some.config.epochs, some.config.weight_decay), (100_000, 0.1), "upstream's defaults");
    assert!(some.taken.is_empty());
}

#[test]
fn the_later_layer_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    fs::write(&path, "recipe: sudoku\nlr: 0.5\nepochs: 2000\n").unwrap();
    let c = resolve(Some(&path), &overrides(&["lr=0.25"])).unwrap().config;
    assert_eq!((c.weight_decay, c.epochs, c.lr), (1.0, 2_000, 0.25), "recipe < file < override");
    // A preset given last on the command line still stands below the other overrides.
    let c = config(&["arch.hidden_size=64", "arch.preset=sudoku"]);
    assert_eq!((c.arch.hidden_size, c.arch.puzzle_emb_ndim), (64, 64));
}

#[test]
fn impossible_configurations_are_refused_with_all_their_faults() {
    let mut said = Transcript::default();
    for texts in [
        vec!["arch.hidden_size=100", "arch.num_heads=8"],
        vec!["arch.hidden_size=24", "arch.num_heads=8"],
        vec!["arch.hidden_size=0"],
        vec!["arch.hidden_size=9223372036854775807"],
        vec!["arch.hidden_size=1048576", "arch.H_layers=1000"],
        vec!["arch.halt_exploration_prob=1.5"],
        vec!["arch.expansion=-1"],
        vec!["epochs=10", "eval_interval=3"],
        vec!["eval_interval=0"],
        vec!["global_batch_size=0"],
        vec!["beta1=1"],
        vec!["lr=-1"],
        vec!["run_name=a/b"],
        vec!["run_name=.."],
        vec!["arch.name=other@Model"],
        vec!["arch.loss.name=other@Loss"],
        vec!["data_path="],
        vec!["arch.rope_theta=0"],
        vec!["lr=-1", "epochs=0", "eval_interval=null"],
    ] {
        said.add(&texts.join(" "), &error(&texts));
    }
    said.matches("impossible_configurations_are_refused_with_all_their_faults");
}
