//! From texts to a checked [`Config`].

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::check::{self, Rules};
use crate::error::{ConfigError, ConfigErrors, Kind};
use crate::machine::Machine;
use crate::tree::{self, Node};
use crate::validate;
use crate::{Config, Origin};

/// A configuration on its way in: one file, then any number of overrides, then [`Document::finish`].
#[derive(Clone, Debug)]
pub struct Document {
    root: Node,
    errors: Vec<ConfigError>,
}

impl Document {
    /// Reads a file of at most 1 MiB.
    ///
    /// # Errors
    /// The file cannot be read, or is not TOML: every syntax error in it.
    pub fn load(path: impl AsRef<Path>) -> Result<Document, ConfigErrors> {
        Ok(Document {
            root: tree::read(path.as_ref())?,
            errors: Vec::new(),
        })
    }

    /// Takes a text; `name` stands for the file in errors.
    ///
    /// # Errors
    /// Every syntax error in the text.
    pub fn parse(name: &str, text: &str) -> Result<Document, ConfigErrors> {
        Ok(Document {
            root: tree::parse(name, text)?,
            errors: Vec::new(),
        })
    }

    /// Overrides one key with an argument `KEY=VALUE`, such as `engine.targets=4` or `device.0.path=/dev/nvme0n1`. Strings need
    /// no quotes; a list of strings may be written `a,b`. What is wrong with it is kept for [`Document::finish`].
    pub fn apply_set(&mut self, argument: &str) {
        if let Err(error) = crate::set::apply(&mut self.root, argument) {
            self.errors.push(error);
        }
    }

    /// Checks keys, types, ranges and how values go together; with a machine, also whether it has what is asked for.
    ///
    /// # Errors
    /// All errors of one pass.
    pub fn finish(mut self, machine: Option<&Machine>) -> Result<Config, ConfigErrors> {
        let validated = validate::validate(&self.root);
        self.errors.extend(validated.errors);
        let mut config = match Config::deserialize(validated.root.value.to_toml()) {
            Ok(config) => config,
            Err(error) => {
                // The schema let something pass that the types refuse: a fault of ours, still no reason to start.
                let error = ConfigError::new(Kind::BadValue, "", error.message());
                self.errors.push(error.at(&validated.root.at, ""));
                return Err(ConfigErrors::new(self.errors));
            }
        };
        config.origin = Origin(Some(Arc::new(validated.root)));
        let mut rules = Rules::new(&config, machine, &validated.hidden);
        check::all(&mut rules);
        self.errors.extend(rules.into_errors());
        if self.errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors::new(self.errors))
        }
    }
}

impl Config {
    /// Reads and checks a file, without looking at the machine; see [`Config::check`].
    ///
    /// # Errors
    /// All errors of one pass.
    pub fn load(path: impl AsRef<Path>) -> Result<Config, ConfigErrors> {
        Document::load(path)?.finish(None)
    }

    /// Reads and checks a text; `name` stands for the file in errors.
    ///
    /// # Errors
    /// All errors of one pass.
    pub fn parse(name: &str, text: &str) -> Result<Config, ConfigErrors> {
        Document::parse(name, text)?.finish(None)
    }

    /// Checks this configuration against a machine: cores, providers, devices, modules, directories. Rules that do not look at
    /// the machine are checked again, for a configuration that was built in memory.
    ///
    /// # Errors
    /// All errors of one pass, with the places in the file that the configuration came from.
    pub fn check(&self, machine: &Machine) -> Result<(), ConfigErrors> {
        let mut rules = Rules::new(self, Some(machine), &[]);
        check::all(&mut rules);
        let errors = rules.into_errors();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ConfigErrors::new(errors))
        }
    }

    /// The configuration with every default filled in, as a file that reads back the same.
    pub fn effective_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_default()
    }
}
