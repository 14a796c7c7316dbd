//! This engine's certificate: read at the start, read again when it changes, and reported before it expires.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine_config::Config;
use engine_rpc::Security;
use rpc_tls::{Files, Identity};

use crate::error::BootError;
use crate::ras::{DeviceEvent, Ras};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(5);
/// While the certificate runs out it is reported so often.
const REPORT: Duration = Duration::from_secs(86_400);
const DAY: i64 = 86_400;

/// What `[tls]` asks for; `None`: there is none.
///
/// # Errors
/// The files are missing or do not fit together: an engine without its certificate does not start.
pub(crate) fn load(config: &Config) -> Result<Option<Security>, BootError> {
    let tls = &config.tls;
    let (Some(ca), Some(certificate), Some(key)) = (&tls.ca, &tls.certificate, &tls.key) else {
        return Ok(None);
    };
    let files = Files {
        ca: ca.clone(),
        certificate: certificate.clone(),
        key: key.clone(),
    };
    let cure = "cure: `keel cert init` and `keel cert issue` make what [tls] names; `keel cert show FILE` says what a file holds";
    let identity = Identity::load(files)
        .map_err(|error| BootError::config(format!("no TLS: {error}\n  {cure}")))?;
    let own = identity.certificate();
    if !own.may_serve {
        let why =
            format!("no TLS: {own} may not serve: issue the engine's certificate without --client");
        return Err(BootError::config(why));
    }
    tracing::info!("TLS as {own}");
    Ok(Some(Security {
        identity,
        required: tls.required,
        within_machine: tls.within_machine,
    }))
}

/// For `keel engine status`; empty without TLS.
pub(crate) fn describe(security: Option<&Security>) -> String {
    security.map_or(String::new(), |security| {
        let certificate = security.identity.certificate();
        match security.required {
            true => format!("required, {certificate}"),
            false => format!("not required, {certificate}"),
        }
    })
}

/// The thread that looks at the files. Dropped, it ends.
pub(crate) struct CertificateWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl CertificateWatch {
    /// Begins to look.
    pub(crate) fn start(
        identity: Identity,
        warn_days: u32,
        control_server: Option<PathBuf>,
        rank: u32,
    ) -> std::io::Result<CertificateWatch> {
        let (stop, stopped) = mpsc::channel();
        let mut watch = Watch {
            identity,
            warn_s: i64::from(warn_days) * DAY,
            ras: Ras::new(control_server),
            reported: None,
            failure: String::new(),
        };
        watch.ras.set_rank(rank);
        let run = move || {
            loop {
                watch.look();
                if stopped.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("keel_tls".to_owned())
            .spawn(run)?;
        Ok(CertificateWatch {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for CertificateWatch {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the hook.
            let _ = thread.join();
        }
    }
}

struct Watch {
    identity: Identity,
    warn_s: i64,
    ras: Ras,
    /// When the expiry was reported last, seconds since 1970.
    reported: Option<i64>,
    /// What is wrong with the files, said once.
    failure: String,
}

impl Watch {
    fn look(&mut self) {
        match self.identity.refresh() {
            Ok(false) => {}
            Ok(true) => {
                self.failure.clear();
                self.reported = None;
                tracing::info!("TLS as {} from now on", self.identity.certificate());
            }
            Err(error) => {
                let text = error.to_string();
                if text != self.failure {
                    tracing::warn!("the certificate in use stays: {text}");
                    self.failure = text;
                }
            }
        }
        let certificate = self.identity.certificate();
        engine_telemetry::gauge("keel_tls_certificate_expires_seconds", &[])
            .set(certificate.not_after as f64);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs().cast_signed());
        let recently = self
            .reported
            .is_some_and(|at| now - at < REPORT.as_secs().cast_signed());
        if certificate.left(now) >= self.warn_s || recently {
            return;
        }
        self.reported = Some(now);
        let days = certificate.left(now).div_euclid(DAY);
        let when = match days {
            ..0 => "has expired: peers refuse this engine".to_owned(),
            days => format!("expires in {days} days"),
        };
        let text = format!(
            "the certificate of {certificate}, {when}; renew it with `keel cert issue --replace` (file {})",
            self.identity.files().certificate.display()
        );
        self.ras
            .raise(DeviceEvent::CertificateExpires, &certificate.name, &text);
    }
}
