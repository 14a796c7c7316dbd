//! Progress bars of long transfers: on a terminal only, on the standard error.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use obj_client::Progress;

use crate::cli::{Cli, Format};

/// A bar for one transfer; invisible where nobody watches.
pub(crate) fn bar(cli: &Cli, verb: &'static str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    if cli.output == Format::Json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(verb);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Moves the bar.
pub(crate) fn advance(bar: &ProgressBar, progress: Progress) {
    if let Some(total) = progress.total {
        bar.set_length(total);
    }
    bar.set_position(progress.done);
}
