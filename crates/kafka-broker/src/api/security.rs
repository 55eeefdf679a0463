//! Handles DescribeAcls, CreateAcls, DeleteAcls, DescribeClientQuotas and DescribeUserScramCredentials: the broker has no
//! authorizer, no quotas and no users.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::call::{Call, HandlerResult};
use crate::shared::Shared;

const DISABLED: i16 = ResponseError::SecurityDisabled.code();

pub fn handle_describe_acls(_: &Shared, call: &Call) -> HandlerResult {
    let _: DescribeAclsRequest = call.request()?;
    let response = DescribeAclsResponse::default().with_error_code(DISABLED);
    call.respond(&response.with_error_message(no_authorizer()))
}

pub fn handle_create_acls(_: &Shared, call: &Call) -> HandlerResult {
    let request: CreateAclsRequest = call.request()?;
    let refused = AclCreationResult::default().with_error_code(DISABLED);
    let results = vec![refused.with_error_message(no_authorizer()); request.creations.len()];
    call.respond(&CreateAclsResponse::default().with_results(results))
}

pub fn handle_delete_acls(_: &Shared, call: &Call) -> HandlerResult {
    let request: DeleteAclsRequest = call.request()?;
    let refused = DeleteAclsFilterResult::default().with_error_code(DISABLED);
    let results = vec![refused.with_error_message(no_authorizer()); request.filters.len()];
    call.respond(&DeleteAclsResponse::default().with_filter_results(results))
}

pub fn handle_describe_client_quotas(_: &Shared, call: &Call) -> HandlerResult {
    let _: DescribeClientQuotasRequest = call.request()?;
    call.respond(&DescribeClientQuotasResponse::default().with_entries(Some(Vec::new())))
}

pub fn handle_describe_user_scram_credentials(_: &Shared, call: &Call) -> HandlerResult {
    let request: DescribeUserScramCredentialsRequest = call.request()?;
    let users = request.users.unwrap_or_default().into_iter();
    let results = users.map(|user| {
        let message = format!("The user has no credentials: {}", user.name);
        DescribeUserScramCredentialsResult::default()
            .with_user(user.name)
            .with_error_code(ResponseError::ResourceNotFound.code())
            .with_error_message(Some(message.into()))
    });
    call.respond(&DescribeUserScramCredentialsResponse::default().with_results(results.collect()))
}

fn no_authorizer() -> Option<StrBytes> {
    Some(StrBytes::from_static_str("No authorizer is configured."))
}
