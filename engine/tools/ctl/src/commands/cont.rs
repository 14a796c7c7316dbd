//! `keel cont create|list|rename|destroy`.

use obj_client::ContainerInfo;
use serde_json::{Value, json};

use crate::cli::{Cli, Cont};
use crate::error::CliError;
use crate::output::{show, table};
use crate::store::{date, failed, pool};

pub(crate) fn run(cli: &Cli, command: &Cont) -> Result<(), CliError> {
    match command {
        Cont::Create {
            pool: in_pool,
            label,
        } => {
            let cont = pool(cli, in_pool)?
                .create_container(label)
                .map_err(failed)?;
            show(cli.output, &cont_json(cont.info()), |_| {
                format!("container {} ({})", cont.info().label, cont.info().uuid)
            })
        }
        Cont::List { pool: in_pool } => {
            let conts = pool(cli, in_pool)?.containers().map_err(failed)?;
            show(
                cli.output,
                &conts.iter().map(cont_json).collect::<Vec<_>>(),
                |_| {
                    let row = |c: &ContainerInfo| {
                        vec![c.label.clone(), date(c.created), c.uuid.to_string()]
                    };
                    table(
                        &["LABEL", "CREATED", "UUID"],
                        &conts.iter().map(row).collect::<Vec<_>>(),
                    )
                },
            )
        }
        Cont::Rename {
            pool: in_pool,
            cont,
            label,
        } => {
            let found = pool(cli, in_pool)?;
            found.rename_container(cont, label).map_err(failed)?;
            show(cli.output, &json!({ "label": label }), |_| {
                format!("container {cont} is {label} now")
            })
        }
        Cont::Destroy {
            pool: in_pool,
            cont,
        } => {
            pool(cli, in_pool)?
                .destroy_container(cont)
                .map_err(failed)?;
            show(cli.output, &json!({ "destroyed": cont }), |_| {
                format!("container {cont} is gone")
            })
        }
    }
}

fn cont_json(cont: &ContainerInfo) -> Value {
    json!({ "uuid": cont.uuid, "pool": cont.pool, "label": cont.label, "created_ns": cont.created })
}
