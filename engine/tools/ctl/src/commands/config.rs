//! `keel config check|schema|explain|show`.

use std::path::Path;

use drpc_wire::{keel, methods};
use engine_config::{ConfigErrors, Document, Machine, Provider};

use crate::cli::{Cli, Config, Format};
use crate::endpoint::Endpoint;
use crate::error::{CliError, Exit};
use crate::output::show;

pub(crate) fn run(cli: &Cli, command: &Config) -> Result<(), CliError> {
    match command {
        Config::Check { file } => check(cli, &file.config, &file.sets),
        // The schema is JSON whatever --output says.
        Config::Schema => crate::output::write_out(engine_config::schema_json().as_bytes()),
        Config::Explain { key } => explain(cli, key.as_deref()),
        Config::Show {
            config: Some(path), ..
        } => {
            let config = engine_config::Config::load(path).map_err(|errors| wrong(cli, &errors))?;
            show_toml(cli, config.effective_toml())
        }
        Config::Show { config: None, .. } => {
            let answer: keel::ConfigEffective =
                Endpoint::connect(cli)?.keel(methods::CONFIG_EFFECTIVE, &())?;
            show_toml(cli, answer.toml)
        }
    }
}

fn check(cli: &Cli, path: &Path, sets: &[String]) -> Result<(), CliError> {
    let mut document = Document::load(path).map_err(|errors| wrong(cli, &errors))?;
    for set in sets {
        document.apply_set(set);
    }
    let config = document
        .finish(Some(&this_machine()?))
        .map_err(|errors| wrong(cli, &errors))?;
    let answer = serde_json::json!({ "file": path, "targets": config.engine.targets, "devices": config.device.len() });
    show(cli.output, &answer, |_| {
        format!(
            "{}: {} targets on {} devices; the engine would start",
            path.display(),
            config.engine.targets,
            config.device.len()
        )
    })
}

fn this_machine() -> Result<Machine, CliError> {
    let topology = spdk_env::cpu::Topology::discover()
        .map_err(|e| CliError::new(Exit::Failed, e.to_string()))?;
    let mut providers = vec![Provider::Native];
    if cfg!(feature = "libspdk") {
        providers.push(Provider::Libspdk);
    }
    Ok(engine_placement::machine(&topology, &providers))
}

pub(crate) fn wrong(cli: &Cli, errors: &ConfigErrors) -> CliError {
    let list: Vec<serde_json::Value> = errors
        .iter()
        .map(|e| serde_json::json!({ "kind": e.kind().as_str(), "key": e.key(), "message": e.message(), "cure": e.cure(), "text": e.to_string() }))
        .collect();
    match cli.output {
        Format::Text => CliError::new(Exit::Config, errors.to_string()),
        Format::Json => CliError::new(Exit::Config, serde_json::Value::from(list).to_string()),
    }
}

fn explain(cli: &Cli, key: Option<&str>) -> Result<(), CliError> {
    let Some(key) = key else {
        return show(cli.output, &engine_config::keys(), |keys| keys.join("\n"));
    };
    let text = engine_config::explain(key).map_err(|unknown| {
        CliError::new(Exit::NoInput, unknown.to_string())
            .cure("`keel config explain` lists all keys")
    })?;
    show(
        cli.output,
        &serde_json::json!({ "key": key, "text": text }),
        |_| text.clone(),
    )
}

fn show_toml(cli: &Cli, toml: String) -> Result<(), CliError> {
    show(cli.output, &serde_json::json!({ "toml": toml }), |_| {
        toml.clone()
    })
}
