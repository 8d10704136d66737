//! Logs and progress, both on stderr, which never tear each other.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One JSON document a line.
    Json,
}

/// The bars of the stages.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: MultiProgress,
}

impl Progress {
    /// Bars on a terminal; hidden elsewhere, and where `wanted` is false.
    pub fn new(wanted: bool) -> Self {
        let is_shown = wanted && io::stderr().is_terminal();
        let target = if is_shown { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target) }
    }

    /// A stage whose length is not known.
    pub fn counter(&self, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} {msg}: {human_pos} ({per_sec}, {elapsed})")
            .expect("a constant template is valid");
        self.start(ProgressBar::new_spinner().with_style(style), what)
    }

    /// A stage of `length` steps.
    pub fn bar(&self, what: impl Into<Cow<'static, str>>, length: u64) -> ProgressBar {
        let template = "{msg} [{bar:30}] {human_pos}/{human_len} ({per_sec}, {eta} left)";
        let style = ProgressStyle::with_template(template).expect("a constant template is valid").progress_chars("=> ");
        self.start(ProgressBar::new(length).with_style(style), what)
    }

    /// A stage of `length` steps whose end is told in its prefix: it knows of pauses and limits.
    pub fn forecast_bar(&self, what: impl Into<Cow<'static, str>>, length: u64) -> ProgressBar {
        let template = "{msg} [{bar:30}] {human_pos}/{human_len} {prefix}";
        let style = ProgressStyle::with_template(template).expect("a constant template is valid").progress_chars("=> ");
        self.start(ProgressBar::new(length).with_style(style), what)
    }

    fn start(&self, bar: ProgressBar, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        let bar = self.bars.add(bar);
        bar.set_message(what);
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        bar
    }

    /// Runs `ask` while no bar is drawn.
    pub fn suspend<T>(&self, ask: impl FnOnce() -> T) -> T {
        self.bars.suspend(ask)
    }
}

/// Writes a log line above the bars.
#[derive(Debug, Clone)]
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'w> MakeWriter<'w> for AboveBars {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

/// Starts logging. Where nobody watches the bars, each stage says so in a line.
///
/// `verbosity` is the number of `-v`, or -1 for `-q`. Only our own crate logs: a client's debug lines hold whole requests.
pub fn start(format: LogFormat, verbosity: i8, progress: &Progress) {
    let level = match verbosity {
        ..0 => LevelFilter::ERROR,
        0 if io::stderr().is_terminal() => LevelFilter::WARN,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        2.. => LevelFilter::TRACE,
    };
    let ours = tracing_subscriber::filter::Targets::new()
        .with_target("orphan_sweeper", level)
        .with_target("deletions", level)
        .with_default(LevelFilter::ERROR.min(level));
    let writer = AboveBars(progress.bars.clone());
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry().with(ours);
    // A second start, as in tests that share a process, keeps the first.
    let _ = match format {
        LogFormat::Text => registry.with(layer.with_ansi(io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
}
