//! `keel cert init|issue|show`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use engine_cert::{Authority, CertError, Pair, Request, Validity, write_pair};
use rpc_tls::{Certificate, Files, Identity};
use serde_json::{Value, json};

use crate::cli::{Cert, Cli};
use crate::error::{CliError, Exit};
use crate::output::show;

/// Every engine may be reached from its own machine.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

pub(crate) fn run(cli: &Cli, command: &Cert) -> Result<(), CliError> {
    match command {
        Cert::Init { at, name, days } => {
            let authority = Authority::create(name, Validity::days(*days)).map_err(refused)?;
            let pair = authority.save(&at.directory).map_err(refused)?;
            let next = "copy ca.pem to every engine and client; keep ca-key.pem here: who has it can be anybody";
            print(cli, &pair, authority.facts(), next)
        }
        Cert::Issue { .. } => issue(cli, command),
        Cert::Show { file } => {
            let text = std::fs::read(file).map_err(|e| CliError::file(file, &e))?;
            let der = rpc_tls::pem::first_certificate(&text);
            let facts = der.and_then(|der| Certificate::from_der(&der));
            let facts = facts.map_err(|why| {
                let text = format!("{}: {why}", file.display());
                CliError::new(Exit::DataErr, text).cure(
                    "give it a certificate in PEM, such as ca.pem or NAME.pem; NAME-key.pem is a key, and `openssl x509 -inform der` turns DER into PEM",
                )
            })?;
            show(cli.output, &fields(&facts), |_| shown(&facts))
        }
    }
}

fn issue(cli: &Cli, command: &Cert) -> Result<(), CliError> {
    let Cert::Issue {
        name,
        at,
        addresses,
        client,
        days,
        out,
        replace,
    } = command
    else {
        return Ok(());
    };
    let authority = Authority::load(&at.directory).map_err(refused)?;
    let request = Request {
        name: name.clone(),
        addresses: match client {
            true => Vec::new(),
            false => all_addresses(name, addresses),
        },
        engine: !client,
        validity: Validity::days(*days),
    };
    let issued = authority.issue(&request).map_err(refused)?;
    let pair = Pair::of(out.as_deref().unwrap_or(&at.directory), name);
    write_pair(&pair, &issued, *replace).map_err(refused)?;
    let facts = issued
        .facts()
        .ok_or_else(|| CliError::new(Exit::Software, "what was issued cannot be read"))?;
    let next = match client {
        true => {
            "with ca.pem: KEEL_TLS_CA, KEEL_TLS_CERTIFICATE, KEEL_TLS_KEY, or the options of the same names"
        }
        false => {
            "with ca.pem: `ca`, `certificate` and `key` of [tls] in the engine's configuration"
        }
    };
    print(cli, &pair, &facts, next)
}

/// Those given, the name if it can be a host's, and the machine's own.
fn all_addresses(name: &str, given: &[String]) -> Vec<String> {
    let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let mut all: Vec<String> = given.to_vec();
    if name.chars().all(is_host) {
        all.push(name.to_owned());
    }
    all.extend(LOOPBACK.map(str::to_owned));
    let mut seen = std::collections::HashSet::new();
    all.retain(|address| seen.insert(address.clone()));
    all
}

fn print(cli: &Cli, pair: &Pair, facts: &Certificate, next: &str) -> Result<(), CliError> {
    let mut value = fields(facts);
    value["certificate"] = json!(pair.certificate);
    value["key"] = json!(pair.key);
    show(cli.output, &value, |_| {
        format!(
            "{}\n{}\n{}\n{next}\n",
            shown(facts),
            pair.certificate.display(),
            pair.key.display()
        )
    })
}

fn fields(facts: &Certificate) -> Value {
    json!({
        "name": facts.name,
        "issuer": facts.issuer,
        "addresses": facts.addresses,
        "authority": facts.is_authority,
        "engine": facts.may_serve,
        "not_before": facts.begins(),
        "not_after": facts.expires(),
        "days_left": days_left(facts),
    })
}

fn shown(facts: &Certificate) -> String {
    let left = match days_left(facts) {
        ..=0 => "expired".to_owned(),
        days => format!("{days} days left"),
    };
    format!("{facts} ({left}), issued by {:?}", facts.issuer)
}

/// Begun days; 0 and less: it has expired.
fn days_left(facts: &Certificate) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs().cast_signed());
    -(-facts.left(now)).div_euclid(86_400)
}

fn refused(error: CertError) -> CliError {
    let text = error.to_string();
    match error {
        CertError::Exists(_) => CliError::new(Exit::CantCreate, text)
            .cure("nothing was written: choose another --ca-dir, --out or NAME; `issue --replace` renews a certificate"),
        CertError::File { path, source } => CliError::file(&path, &source)
            .cure("`keel cert init` makes an authority; --ca-dir says where it is"),
        CertError::Expired { .. } => CliError::new(Exit::Failed, text)
            .cure("make a new authority, give its ca.pem to all beside the old one (one file may hold both), then issue anew"),
        CertError::Authority { .. } => CliError::new(Exit::DataErr, text),
        CertError::Name { .. } | CertError::Address(_) => CliError::new(Exit::DataErr, text),
        CertError::Make(_) => CliError::new(Exit::Software, text),
    }
}

/// The certificate that the command line names for `keel` itself.
pub(crate) fn own_identity(cli: &Cli) -> Result<Option<Identity>, CliError> {
    let tls = &cli.tls;
    let (Some(ca), Some(certificate), Some(key)) = (&tls.ca, &tls.certificate, &tls.key) else {
        return Ok(None);
    };
    let own = |path: &Path| path.to_owned();
    let files = Files {
        ca: own(ca),
        certificate: own(certificate),
        key: own(key),
    };
    let identity = Identity::load(files).map_err(|error| {
        CliError::new(Exit::Config, error.to_string())
            .cure("check --tls-ca, --tls-certificate and --tls-key; `keel cert show FILE` says what a file holds")
    })?;
    Ok(Some(identity))
}
