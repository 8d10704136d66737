//! Counts every request that left, by its operation and the status of its reply.

use aws_sdk_s3::config::interceptors::FinalizerInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;

use crate::metrics;

/// Counts every request of a client, which sends each once.
#[derive(Debug)]
pub struct Meter;

impl Intercept for Meter {
    fn name(&self) -> &'static str {
        "meter"
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let status = context.response().map(|response| response.status().as_u16());
        // A request that was held back, because the proof behind it was too old, has not left.
        let has_left =
            status.is_some() || !matches!(context.output_or_error(), Some(Err(error)) if error.is_interceptor_error());
        if has_left && let Some(operation) = bag.load::<Metadata>() {
            metrics::request_ended(operation.name(), status);
        }
        Ok(())
    }
}
