//! Why a pricing model returned no price.

/// Tells whether it is worth asking the model again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EstimateError {
    /// The model cannot work now: the vehicle waits and the model is asked again, with growing pauses.
    #[error("{0}")]
    Retry(String),
    /// The model can never price this vehicle: the event goes to the dead-letter topic with this reason.
    #[error("{0}")]
    Reject(String),
}
