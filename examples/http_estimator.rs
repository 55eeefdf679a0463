//! Runs the estimate role with a pricing model that is an HTTP service.
//!
//! `cargo run --example http_estimator -- --model-url http://127.0.0.1:9000/prices` replaces
//! `vehicle-platform estimate`. It posts each vehicle as JSON, as in `schemas/stock.vehicle-created.json`, and expects
//! the response 200 with `{"price": 12345.67}`, in US dollars. The responses 400, 413 and 422 reject a vehicle. Any
//! other response is treated as an outage, and the request is retried.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url, header};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use vehicle_platform::duration::parse_duration;
use vehicle_platform::environment;
use vehicle_platform::estimate::{Estimate, EstimateArgs, EstimateError, Estimator};
use vehicle_platform::event::VehicleCreated;
use vehicle_platform::https;
use vehicle_platform::open_files::{self, ROLE_FILES};
use vehicle_platform::process;
use vehicle_platform::secret::SecretParser;
use vehicle_platform::shutdown::run_until_signal;
use vehicle_platform::telemetry::LogArgs;
use vehicle_platform::trace::{self, TraceArgs};
use vehicle_platform::vehicle::Price;

/// The maximum size of a response.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The longest pause that the service can request with `Retry-After`.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Estimates a price for each created vehicle with an HTTP service
#[derive(Debug, Parser)]
#[command(name = "http_estimator", version, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub estimate: EstimateArgs,

    #[command(flatten)]
    pub model: HttpModelArgs,

    #[command(flatten)]
    pub trace: TraceArgs,

    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Pricing model")]
pub struct HttpModelArgs {
    /// URL to post vehicles to
    #[arg(long, env = "MODEL_URL", hide_env_values = true, value_name = "URL", value_parser = SecretParser::new(parse_url))]
    model_url: Url,

    /// URL that responds to GET with 2xx while the service can work [default: not checked]
    #[arg(long, env = "MODEL_HEALTH_URL", hide_env_values = true, value_name = "URL", value_parser = SecretParser::new(parse_url))]
    model_health_url: Option<Url>,

    /// Timeout of a request, including the connection
    #[arg(long, env = "MODEL_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    model_timeout: Duration,
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::from_str(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err("must begin with http:// or https://".to_owned()),
    }
}

fn main() {
    let cli: Cli = environment::parse();
    let log = cli.log.clone();
    process::run(&log, async {
        open_files::claim(ROLE_FILES)?;
        trace::init(&cli.trace, "estimate")?;
        let timeout = cli.estimate.role.shutdown.shutdown_timeout;
        run_until_signal(timeout, |shutdown| run(cli, shutdown)).await
    });
}

/// Runs the role until `shutdown`.
pub async fn run(cli: Cli, shutdown: CancellationToken) -> anyhow::Result<()> {
    let estimator = HttpEstimator::new(cli.model)?;
    Estimate::bind(cli.estimate)?.run(estimator, shutdown).await
}

/// A pricing model that is an HTTP service.
struct HttpEstimator {
    http: Client,
    args: HttpModelArgs,
}

#[derive(Deserialize)]
struct Answer {
    price: f64,
}

impl HttpEstimator {
    fn new(args: HttpModelArgs) -> anyhow::Result<Self> {
        let http = https::client()
            .connect_timeout(args.model_timeout.min(Duration::from_secs(2)))
            .timeout(args.model_timeout)
            // A redirect could turn a POST into a GET.
            .redirect(Policy::none())
            .build()
            .context("cannot set up an HTTP client")?;
        Ok(Self { http, args })
    }
}

impl Estimator for HttpEstimator {
    async fn estimate(&self, vehicle: &VehicleCreated) -> Result<Price, EstimateError> {
        let request = self.http.post(self.args.model_url.clone()).json(vehicle);
        let response = request.send().await.map_err(unavailable)?;
        let (status, pause) = (response.status(), asked_pause(&response));
        match status {
            StatusCode::OK => match read(response).await? {
                (body, true) => price(&body),
                (_, false) => Err(EstimateError::Retry(format!(
                    "the model answered with more than {MAX_ANSWER_BYTES} bytes"
                ))),
            },
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                // However long it is: a verdict is no outage.
                let (body, _) = read(response).await?;
                let reason = String::from_utf8_lossy(&body);
                Err(EstimateError::Reject(format!("the model answered {status}: {reason}")))
            }
            // The vehicle is not the cause of an outage, a wrong URL or wrong credentials.
            _ => {
                // Waiting here occupies a permit, which reduces the load on the service.
                tokio::time::sleep(pause).await;
                Err(EstimateError::Retry(format!("the model answered {status}")))
            }
        }
    }

    fn max_duration(&self) -> Duration {
        self.args.model_timeout.saturating_add(MAX_PAUSE)
    }

    async fn check(&self) -> anyhow::Result<()> {
        let Some(url) = &self.args.model_health_url else { return Ok(()) };
        let response = self.http.get(url.clone()).send().await.map_err(unavailable)?;
        ensure!(response.status().is_success(), "the model answered {}", response.status());
        Ok(())
    }
}

/// Parses the price in a response. An invalid price rejects the vehicle, and any other response counts as an outage.
fn price(body: &[u8]) -> Result<Price, EstimateError> {
    let Answer { price } = serde_json::from_slice(body)
        .map_err(|error| EstimateError::Retry(format!("the model did not return a price: {error}")))?;
    Price::parse(price)
        .map_err(|reason| EstimateError::Reject(format!("the model returned an invalid price: {reason}")))
}

/// Reads at most [`MAX_ANSWER_BYTES`] of a body. Returns whether that is all of it.
async fn read(mut response: Response) -> Result<(Vec<u8>, bool), EstimateError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
        let room = MAX_ANSWER_BYTES - body.len();
        body.extend(chunk.iter().take(room));
        if chunk.len() > room {
            return Ok((body, false));
        }
    }
    Ok((body, true))
}

/// Returns the pause that a `Retry-After` header in seconds requests. Ignores a header with a date.
fn asked_pause(response: &Response) -> Duration {
    let asked = response.headers().get(header::RETRY_AFTER);
    let seconds = asked.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds.map_or(Duration::ZERO, Duration::from_secs).min(MAX_PAUSE)
}

fn unavailable(error: reqwest::Error) -> EstimateError {
    // The URL may contain a password.
    let error = anyhow::Error::from(error.without_url());
    EstimateError::Retry(format!("the model is unavailable: {error:#}"))
}
