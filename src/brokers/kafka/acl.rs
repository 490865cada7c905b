//! ACLs in the numeric codes of Kafka's protocol (`AclOperation`, `ResourceType`, `PatternType` and `AclPermissionType` of
//! Kafka's Java clients).

use kafka_protocol::messages::DescribeAclsRequest;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::protocol::StrBytes;

use crate::api::{AppliedBinding, BindingOperation, BindingPattern, BindingResource};
use crate::brokers::Holdings;

/// The code `ANY` of resource, pattern, operation and permission in filters.
pub const ANY: i8 = 1;
/// The code of the operation `ALTER`.
pub const ALTER: i8 = 7;
const ALLOW: i8 = 3;
const EVERY_HOST: &str = "*";

fn resource_code(resource: BindingResource) -> i8 {
    match resource {
        BindingResource::Topic => 2,
        BindingResource::Group => 3,
    }
}

fn pattern_code(pattern: BindingPattern) -> i8 {
    match pattern {
        BindingPattern::Literal => 3,
        BindingPattern::Prefixed => 4,
    }
}

fn operation_code(operation: BindingOperation) -> i8 {
    match operation {
        BindingOperation::Read => 3,
        BindingOperation::Write => 4,
    }
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// The entry for a binding in a request that creates ACLs.
pub fn creation(binding: &AppliedBinding) -> AclCreation {
    AclCreation::default()
        .with_resource_type(resource_code(binding.resource))
        .with_resource_name(text(&binding.name))
        .with_resource_pattern_type(pattern_code(binding.pattern))
        .with_principal(text(&binding.principal))
        .with_host(text(EVERY_HOST))
        .with_operation(operation_code(binding.operation))
        .with_permission_type(ALLOW)
}

/// A filter that matches exactly this binding, for deletion.
pub fn exact_filter(binding: &AppliedBinding) -> DeleteAclsFilter {
    DeleteAclsFilter::default()
        .with_resource_type_filter(resource_code(binding.resource))
        .with_resource_name_filter(Some(text(&binding.name)))
        .with_pattern_type_filter(pattern_code(binding.pattern))
        .with_principal_filter(Some(text(&binding.principal)))
        .with_host_filter(Some(text(EVERY_HOST)))
        .with_operation(operation_code(binding.operation))
        .with_permission_type(ALLOW)
}

/// A query that matches exactly this binding.
pub fn exact_query(binding: &AppliedBinding) -> DescribeAclsRequest {
    DescribeAclsRequest::default()
        .with_resource_type_filter(resource_code(binding.resource))
        .with_resource_name_filter(Some(text(&binding.name)))
        .with_pattern_type_filter(pattern_code(binding.pattern))
        .with_principal_filter(Some(text(&binding.principal)))
        .with_host_filter(Some(text(EVERY_HOST)))
        .with_operation(operation_code(binding.operation))
        .with_permission_type(ALLOW)
}

/// Adds the listed ACLs to the holdings: as a binding if a policy could have created it, otherwise as a description.
pub fn collect(resources: &[DescribeAclsResource], holdings: &mut Holdings) {
    for resource in resources {
        for acl in &resource.acls {
            match binding(resource, acl) {
                Some(binding) => _ = holdings.bindings.insert(binding),
                None => holdings.foreign.push(describe(resource, acl)),
            }
        }
    }
}

fn binding(resource: &DescribeAclsResource, acl: &AclDescription) -> Option<AppliedBinding> {
    if acl.permission_type != ALLOW || acl.host.as_str() != EVERY_HOST {
        return None;
    }
    Some(AppliedBinding {
        principal: acl.principal.to_string(),
        operation: match acl.operation {
            3 => BindingOperation::Read,
            4 => BindingOperation::Write,
            _ => return None,
        },
        resource: match resource.resource_type {
            2 => BindingResource::Topic,
            3 => BindingResource::Group,
            _ => return None,
        },
        pattern: match resource.pattern_type {
            3 => BindingPattern::Literal,
            4 => BindingPattern::Prefixed,
            _ => return None,
        },
        name: resource.resource_name.to_string(),
    })
}

fn describe(resource: &DescribeAclsResource, acl: &AclDescription) -> String {
    let named = |names: &[&str], code: i8| {
        let name = usize::try_from(code).ok().and_then(|code| names.get(code).copied());
        name.map_or_else(|| format!("code {code}"), ToOwned::to_owned)
    };
    let operations = [
        "Unknown",
        "Any",
        "All",
        "Read",
        "Write",
        "Create",
        "Delete",
        "Alter",
        "Describe",
        "ClusterAction",
        "DescribeConfigs",
        "AlterConfigs",
        "IdempotentWrite",
        "CreateTokens",
        "DescribeTokens",
        "TwoPhaseCommit",
    ];
    let resources = ["unknown", "any", "topic", "group", "cluster", "transactional ID", "delegation token", "user"];
    format!(
        "{}: {} {} on {} {}{}{}",
        acl.principal.as_str(),
        if acl.permission_type == ALLOW { "allow" } else { "deny" },
        named(&operations, acl.operation),
        named(&resources, resource.resource_type),
        resource.resource_name.as_str(),
        if resource.pattern_type == 4 { "*" } else { "" },
        if acl.host.as_str() == EVERY_HOST { String::new() } else { format!(" from {}", acl.host.as_str()) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_read_back_as_it_was_written() {
        for (pattern, code) in [(BindingPattern::Literal, 3), (BindingPattern::Prefixed, 4)] {
            let sent = AppliedBinding {
                principal: "User:CN=orders".into(),
                operation: BindingOperation::Write,
                resource: BindingResource::Topic,
                pattern,
                name: "shop.".into(),
            };
            let request = creation(&sent);
            assert_eq!(request.resource_pattern_type, code);
            let listed = DescribeAclsResource::default()
                .with_resource_type(request.resource_type)
                .with_resource_name(request.resource_name)
                .with_pattern_type(request.resource_pattern_type)
                .with_acls(vec![
                    AclDescription::default()
                        .with_principal(request.principal)
                        .with_host(request.host)
                        .with_operation(request.operation)
                        .with_permission_type(request.permission_type),
                ]);
            let mut holdings = Holdings::default();
            collect(&[listed], &mut holdings);
            assert_eq!(holdings.bindings.into_iter().collect::<Vec<_>>(), [sent]);
        }
    }

    #[test]
    fn an_acl_that_no_policy_could_create_is_described() {
        let denied = DescribeAclsResource::default()
            .with_resource_type(4)
            .with_resource_name(text("kafka-cluster"))
            .with_pattern_type(3)
            .with_acls(vec![
                AclDescription::default()
                    .with_principal(text("User:CN=x"))
                    .with_host(text("10.0.0.1"))
                    .with_operation(7)
                    .with_permission_type(2),
            ]);
        let mut holdings = Holdings::default();
        collect(&[denied], &mut holdings);
        assert_eq!(holdings.foreign, ["User:CN=x: deny Alter on cluster kafka-cluster from 10.0.0.1"]);
    }
}
