//! A Chromium without a window, driven through chromedriver. It ends when it is dropped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::common::log::LoggingPrefsLogLevel;
use thirtyfour::prelude::*;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::skipped;

/// How long the browser may take to be there.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The least contrast between a piece of text and what is behind it (WCAG 2: 4.5 can be read by most).
pub(crate) const WORST_CONTRAST: &str = "
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
                           return canvas.getImageData(0, 0, 1, 1).data; };
    const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => { const v = c[i] / 255;
        return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
    const behind = (el) => { for (let at = el; at; at = at.parentElement) {
        const c = rgb(getComputedStyle(at).backgroundColor); if (c[3] === 255) return c; } return rgb('white'); };
    let worst = { ratio: 21 };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const el = walker.currentNode.parentElement, text = walker.currentNode.nodeValue.trim();
        if (!text || !el.checkVisibility() || el.closest('.said, .skip, .quiet')) continue;
        const style = getComputedStyle(el);
        const [a, b] = [light(rgb(el.ownerSVGElement ? style.fill : style.color)), light(behind(el))];
        let opacity = 1; for (let at = el; at; at = at.parentElement) opacity *= Number(getComputedStyle(at).opacity);
        const ratio = ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) - 1) * opacity + 1;
        if (ratio < worst.ratio) worst = { ratio, text, of: el.className.baseVal ?? el.className };
    }
    return worst;";

/// How wide the window is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Width {
    /// 1,280 pixels.
    Desktop,
    /// 390 pixels, with a finger.
    Phone,
}

/// What the system prefers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// See the module's text.
pub(crate) struct Browser {
    driver: WebDriver,
    _chromedriver: Child,
    _profile: TempDir,
}

impl Browser {
    /// `None`, with a word on stderr, where there is no Chromium.
    pub(crate) async fn start() -> Option<Self> {
        let found = |name: &str| {
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(name).is_file())
        };
        if let Some(missing) = ["chromium", "chromedriver"].into_iter().find(|name| !found(name)) {
            skipped(format_args!("the pages: {missing} is not installed (apt-get install chromium chromium-driver)"));
            return None;
        }
        let started = tokio::time::timeout(START_TIMEOUT, Self::try_start()).await;
        Some(started.expect("the browser starts in time"))
    }

    async fn try_start() -> Self {
        let mut chromedriver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(chromedriver.stdout.take().unwrap()).lines();
        let port: u16 = loop {
            let line = lines.next_line().await.unwrap().expect("chromedriver says where it listens");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        // It must be able to go on saying things.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let profile = tempfile::tempdir().unwrap();
        let mut wanted = DesiredCapabilities::chrome();
        for argument in
            ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"]
        {
            wanted.add_arg(argument).unwrap();
        }
        wanted.add_arg(&format!("--user-data-dir={}", profile.path().display())).unwrap();
        if rustix::process::geteuid().is_root() {
            wanted.add_arg("--no-sandbox").unwrap();
        }
        wanted.set_logging_prefs("browser", LoggingPrefsLogLevel::All).unwrap();
        // The library that drives the browser brings no TLS of its own. Whoever comes second finds it installed.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), wanted).await.unwrap();
        Self { driver, _chromedriver: chromedriver, _profile: profile }
    }

    pub(crate) async fn goto(&self, url: &str) {
        self.driver.goto(url.to_owned()).await.unwrap();
    }

    /// What a script returns. It runs for the test, not in the page's name, so the page's policy does not bind it.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.driver.execute(script.to_owned(), Vec::new()).await.unwrap().json().clone()
    }

    /// Types into a field.
    pub(crate) async fn write(&self, css: &str, text: &str) {
        self.driver.find(By::Css(css.to_owned())).await.unwrap().send_keys(text).await.unwrap();
    }

    /// Presses with the mouse.
    pub(crate) async fn click(&self, css: &str) {
        self.driver.find(By::Css(css.to_owned())).await.unwrap().click().await.unwrap();
    }

    /// From the next page on, the scripts of pages do not run; those of [`Browser::run`] do.
    pub(crate) async fn forbid_scripts(&self) {
        self.driver.cdp().send_raw("Emulation.setScriptExecutionDisabled", json!({"value": true})).await.unwrap();
    }

    /// Downloads go into this folder, and nobody is asked.
    pub(crate) async fn download_into(&self, folder: &Path) {
        let wanted = json!({"behavior": "allow", "downloadPath": folder});
        self.driver.cdp().send_raw("Browser.setDownloadBehavior", wanted).await.unwrap();
    }

    /// Presses Tab.
    pub(crate) async fn tab(&self) {
        self.driver.action_chain().send_keys(Key::Tab + "").perform().await.unwrap();
    }

    /// Sets the window's width and the system's scheme.
    pub(crate) async fn look(&self, width: Width, scheme: Scheme) {
        let metrics = match width {
            Width::Desktop => json!({"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": false}),
            Width::Phone => json!({"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true}),
        };
        let prefers = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": prefers}]});
        self.driver.cdp().send_raw("Emulation.setDeviceMetricsOverride", metrics).await.unwrap();
        self.driver.cdp().send_raw("Emulation.setEmulatedMedia", media).await.unwrap();
    }

    /// Keeps a picture of the whole page.
    pub(crate) async fn keep(&self, name: &str) {
        let wanted = json!({"format": "png", "captureBeyondViewport": true});
        let answer = self.driver.cdp().send_raw("Page.captureScreenshot", wanted).await.unwrap();
        let data = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, answer["data"].as_str().unwrap()).unwrap();
        let folder = screenshots();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), data).unwrap();
    }

    /// What the browser complained of since the last look: errors of scripts, breaches of a policy, what was not found.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.driver.browser_log().await.unwrap();
        log.into_iter().filter(|entry| entry.level != "INFO").map(|entry| entry.message).collect()
    }

    /// Closes it and says where the pictures are.
    #[allow(clippy::print_stderr)]
    pub(crate) async fn end(self) {
        self.driver.quit().await.unwrap();
        eprintln!("screenshots are in {}", screenshots().display());
    }
}

fn screenshots() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
    target.join("screenshots")
}
