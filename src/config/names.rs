//! Names of a run: `checkpoints/<project>/<run>`.

use rand::{Rng, seq::IndexedRandom};

use super::TrainConfig;

const ADJECTIVES: &[&str] = &[
    "amber", "brave", "brisk", "calm", "candid", "clever", "coral", "crisp", "curious", "daring", "eager", "early",
    "fair", "fleet", "fond", "frosty", "gentle", "glad", "golden", "grand", "green", "happy", "hazel", "honest",
    "humble", "idle", "indigo", "jolly", "keen", "kind", "light", "lively", "loyal", "lucid", "lucky", "merry", "mild",
    "modest", "neat", "nimble", "noble", "olive", "patient", "plain", "polite", "proud", "quick", "quiet", "rapid",
    "rosy", "rustic", "serene", "sharp", "silent", "silver", "sincere", "snug", "solid", "steady", "stellar", "subtle",
    "sunny", "swift", "tidy", "tranquil", "upbeat", "velvet", "vivid", "warm", "wise", "witty", "zesty",
];

const ANIMALS: &[&str] = &[
    "alpaca", "badger", "bat", "beaver", "bee", "bison", "boar", "camel", "caribou", "cat", "cheetah", "chough",
    "cobra", "condor", "crane", "cricket", "crow", "curlew", "deer", "dolphin", "dove", "eagle", "egret", "eland",
    "elk", "falcon", "ferret", "finch", "fox", "gazelle", "gecko", "gibbon", "goose", "hare", "hawk", "heron",
    "hornet", "ibex", "ibis", "jackal", "jay", "kestrel", "kiwi", "lark", "lemur", "lynx", "magpie", "marten", "mole",
    "moose", "newt", "ocelot", "orca", "osprey", "otter", "owl", "panda", "pelican", "plover", "puffin", "quail",
    "raven", "robin", "salmon", "seal", "shrew", "stork", "swan", "tapir", "tern", "toad", "turtle", "viper", "vole",
    "wren", "yak", "zebra",
];

/// Two words joined by a hyphen, such as `nimble-otter`.
pub fn random_slug(rng: &mut impl Rng) -> String {
    let pick = |words: &[&'static str], rng: &mut _| words.choose(rng).copied().unwrap_or("run");
    let adjective = pick(ADJECTIVES, rng);
    format!("{adjective}-{}", pick(ANIMALS, rng))
}

impl TrainConfig {
    /// Fills `project_name`, `run_name` and `checkpoint_path` where they are not given, by upstream's rule:
    /// `<Dataset folder> ACT-torch`, `<model class> <two random words>`, `checkpoints/<project>/<run>`.
    pub fn fill_names(&mut self, rng: &mut impl Rng) {
        let project = self.project_name.get_or_insert_with(|| {
            let name = self.data_path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            format!("{} ACT-torch", capitalize(name))
        });
        let run = self.run_name.get_or_insert_with(|| format!("{} {}", self.arch.class_name(), random_slug(rng)));
        self.checkpoint_path.get_or_insert_with(|| format!("checkpoints/{project}/{run}"));
    }
}

/// Python's `str.capitalize`: the first letter large, all others small.
fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &chars.as_str().to_lowercase()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn names_follow_upstreams_rule() {
        let named = |data_path: &str| {
            let mut config = TrainConfig { data_path: data_path.into(), ..TrainConfig::default() };
            config.fill_names(&mut ChaCha8Rng::seed_from_u64(1));
            config
        };
        let config = named("data/sudoku-Extreme-1k-aug-1000/");
        assert_eq!(config.project_name.as_deref(), Some("Sudoku-extreme-1k-aug-1000 ACT-torch"));
        let run = config.run_name.clone().unwrap();
        assert!(run.starts_with("HierarchicalReasoningModel_ACTV1 ") && run.contains('-'), "{run}");
        assert_eq!(config.checkpoint_path, Some(format!("checkpoints/Sudoku-extreme-1k-aug-1000 ACT-torch/{run}")));
        assert_eq!(config, named("data/sudoku-Extreme-1k-aug-1000/"), "the same seed gives the same name");
    }

    #[test]
    fn given_names_stay() {
        let mut config = TrainConfig { run_name: Some("mine".into()), ..TrainConfig::default() };
        config.fill_names(&mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(config.checkpoint_path.as_deref(), Some("checkpoints/Sudoku-extreme-full ACT-torch/mine"));
    }
}
