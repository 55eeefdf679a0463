//! Handles AlterConfigs, which replaces all configs of a topic, and IncrementalAlterConfigs (KIP-339).

use std::collections::{BTreeMap, HashMap, HashSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};
use kafka_protocol::protocol::StrBytes;

use super::config_resource::{ConfigResource, find_topic};
use super::refused::{Refused, code_and_message, refused};
use crate::call::{Call, HandlerResult};
use crate::core::Core;
use crate::entry::Entry;
use crate::shared::Shared;
use crate::topic_configs::{self, Kind};

/// `AlterConfigOp.OpType`
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Describes what shall happen to the configs of a resource.
struct Alteration {
    resource_type: i8,
    resource_name: StrBytes,
    /// Whether configs that are not named remain.
    incremental: bool,
    changes: Vec<Change>,
}

struct Change {
    name: StrBytes,
    operation: i8,
    value: Option<StrBytes>,
}

pub fn handle_alter_configs(shared: &Shared, call: &Call) -> HandlerResult {
    let request: AlterConfigsRequest = call.request()?;
    let alterations = request.resources.into_iter().map(|resource| Alteration {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        incremental: false,
        changes: resource
            .configs
            .into_iter()
            .map(|config| Change { name: config.name, operation: SET, value: config.value })
            .collect(),
    });
    let alterations: Vec<_> = alterations.collect();
    let altered = alter_all(&mut shared.lock(), &alterations, request.validate_only);
    let responses = alterations.into_iter().zip(altered).map(|(alteration, altered)| {
        let (error_code, message) = code_and_message(&altered);
        alter_configs_response::AlterConfigsResourceResponse::default()
            .with_error_code(error_code)
            .with_error_message(message)
            .with_resource_type(alteration.resource_type)
            .with_resource_name(alteration.resource_name)
    });
    call.respond(&AlterConfigsResponse::default().with_responses(responses.collect()))
}

pub fn handle_incremental_alter_configs(shared: &Shared, call: &Call) -> HandlerResult {
    let request: IncrementalAlterConfigsRequest = call.request()?;
    let alterations = request.resources.into_iter().map(|resource| Alteration {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        incremental: true,
        changes: resource
            .configs
            .into_iter()
            .map(|config| Change {
                name: config.name,
                operation: config.config_operation,
                value: config.value,
            })
            .collect(),
    });
    let alterations: Vec<_> = alterations.collect();
    let altered = alter_all(&mut shared.lock(), &alterations, request.validate_only);
    let responses = alterations.into_iter().zip(altered).map(|(alteration, altered)| {
        let (error_code, message) = code_and_message(&altered);
        incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_error_code(error_code)
            .with_error_message(message)
            .with_resource_type(alteration.resource_type)
            .with_resource_name(alteration.resource_name)
    });
    call.respond(&IncrementalAlterConfigsResponse::default().with_responses(responses.collect()))
}

fn alter_all(core: &mut Core, alterations: &[Alteration], validate_only: bool) -> Vec<Result<(), Refused>> {
    let resource = |alteration: &Alteration| (alteration.resource_type, alteration.resource_name.clone());
    let mut named: HashMap<_, usize> = HashMap::new();
    for alteration in alterations {
        *named.entry(resource(alteration)).or_default() += 1;
    }
    let altered = alterations.iter().map(|alteration| match named.get(&resource(alteration)) {
        Some(1) => alter(core, alteration, validate_only),
        _ => refused(ResponseError::InvalidRequest, "The resource is named more than once."),
    });
    altered.collect()
}

fn alter(core: &mut Core, alteration: &Alteration, validate_only: bool) -> Result<(), Refused> {
    check_changes(&alteration.changes)?;
    match ConfigResource::new(alteration.resource_type, &alteration.resource_name)? {
        ConfigResource::Topic("") => refused(
            ResponseError::InvalidRequest,
            "The topic must be named: there are no default topic configs.",
        ),
        ConfigResource::Topic(name) => {
            let set = find_topic(core.state(), name)?.configs.set();
            let configs = if alteration.incremental { set.clone() } else { BTreeMap::new() };
            let configs = apply(configs, &alteration.changes)?;
            let configs = topic_configs::check(configs)
                .or_else(|message| refused(ResponseError::InvalidConfig, message))?;
            if !validate_only {
                let configs = configs.into_iter().map(|(name, value)| (name.into(), value.into()));
                let topic = alteration.resource_name.clone();
                core.commit(&Entry::TopicConfigured { topic, configs: configs.collect() })?;
            }
            Ok(())
        }
        ConfigResource::Broker | ConfigResource::BrokerDefaults | ConfigResource::BrokerLogger => {
            let set = alteration.changes.iter().filter(|change| change.operation != DELETE);
            let names: Vec<&str> = set.map(|change| change.name.as_str()).collect();
            if names.is_empty() {
                return Ok(());
            }
            let message = format!("Cannot update these configs dynamically: {}", names.join(", "));
            refused(ResponseError::InvalidRequest, message)
        }
    }
}

/// Checks the form of the changes (`ConfigAdminManager.preprocess`).
fn check_changes(changes: &[Change]) -> Result<(), Refused> {
    let mut names = HashSet::new();
    if !changes.iter().all(|change| names.insert(&change.name)) {
        return refused(ResponseError::InvalidRequest, "A config is named more than once.");
    }
    let without_value = changes.iter().filter(|change| change.operation != DELETE && change.value.is_none());
    let without_value: Vec<&str> = without_value.map(|change| change.name.as_str()).collect();
    if !without_value.is_empty() {
        let message = format!("Null value not supported for: {}", without_value.join(", "));
        return refused(ResponseError::InvalidRequest, message);
    }
    Ok(())
}

/// Returns the configs after these changes. Their values are not checked yet.
fn apply(
    mut configs: BTreeMap<String, String>,
    changes: &[Change],
) -> Result<BTreeMap<String, String>, Refused> {
    for Change { name, operation, value } in changes {
        let value = value.as_deref().unwrap_or_default();
        let altered = match *operation {
            SET => value.to_owned(),
            DELETE => {
                configs.remove(name.as_str());
                continue;
            }
            APPEND | SUBTRACT => {
                let key = topic_configs::find(name).filter(|key| key.kind == Kind::List);
                let Some(key) = key else {
                    let message = format!("{name} is not a list: no value can be appended or subtracted.");
                    return refused(ResponseError::InvalidConfig, message);
                };
                let current = configs.get(name.as_str()).map_or(key.default, String::as_str);
                alter_list(current, value, *operation == APPEND)
            }
            _ => {
                let message = format!("Unknown operation {operation}.");
                return refused(ResponseError::InvalidRequest, message);
            }
        };
        configs.insert(name.to_string(), altered);
    }
    Ok(configs)
}

fn alter_list(current: &str, value: &str, append: bool) -> String {
    let mut elements: Vec<&str> = current.split(',').filter(|element| !element.is_empty()).collect();
    for element in value.split(',').map(str::trim) {
        if !append {
            elements.retain(|present| *present != element);
        } else if !elements.contains(&element) {
            elements.push(element);
        }
    }
    elements.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_appended_to_lists_once_and_subtracted() {
        for (current, value, appended, subtracted) in [
            ("delete", "compact", "delete,compact", "delete"),
            ("delete,compact", "compact", "delete,compact", "delete"),
            ("", "0:1,1:1", "0:1,1:1", ""),
            ("delete", "delete", "delete", ""),
        ] {
            assert_eq!(alter_list(current, value, true), appended);
            assert_eq!(alter_list(current, value, false), subtracted);
        }
    }
}
