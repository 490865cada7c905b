//! ACLs in the numeric codes of Kafka's protocol (`AclOperation`, `ResourceType`, `PatternType` and `AclPermissionType` of
//! Kafka's Java clients).

use kafka_protocol::messages::DescribeAclsRequest;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::protocol::StrBytes;

use super::reader::{Malformed, Reader};
use crate::api::{AppliedBinding, BindingOperation, BindingPattern, BindingResource};
use crate::brokers::Holdings;
use crate::domain::text::foreign;

/// The code `ANY` of resource, pattern, operation and permission in filters.
pub const ANY: i8 = 1;
/// The code of the operation `ALTER`.
pub const ALTER: i8 = 7;
const ALLOW: i8 = 3;
const EVERY_HOST: &str = "*";
/// How many ACLs an answer lists at most.
const MAX_LISTED: usize = 250_000;
/// Longest principal or name of a resource that a policy could have given to an ACL, in bytes.
const MAX_NAME: usize = 512;

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

/// An ACL as a broker lists it.
struct Listed<'a> {
    resource: i8,
    name: &'a str,
    pattern: i8,
    principal: &'a str,
    host: &'a str,
    operation: i8,
    permission: i8,
}

/// Reads the list of ACLs: each as a binding if a policy could have created it, otherwise as a description.
///
/// # Errors
/// What cannot be read.
pub fn read(body: &mut Reader<'_>) -> Result<Holdings, Malformed> {
    let mut holdings = Holdings::default();
    let mut count = 0;
    body.structs(|resource| {
        let (kind, name, pattern) = (resource.i8()?, resource.text()?, resource.i8()?);
        resource.structs(|acl| {
            count += 1;
            if count > MAX_LISTED {
                return Err(Malformed::TooMany(MAX_LISTED));
            }
            let (principal, host) = (acl.text()?, acl.text()?);
            let (operation, permission) = (acl.i8()?, acl.i8()?);
            let listed = Listed { resource: kind, name, pattern, principal, host, operation, permission };
            match binding(&listed) {
                Some(binding) => _ = holdings.bindings.insert(binding),
                None => holdings.foreign.push(describe(&listed)),
            }
            Ok(())
        })
    })?;
    Ok(holdings)
}

fn binding(acl: &Listed<'_>) -> Option<AppliedBinding> {
    if acl.permission != ALLOW || acl.host != EVERY_HOST || acl.principal.len().max(acl.name.len()) > MAX_NAME {
        return None;
    }
    Some(AppliedBinding {
        principal: acl.principal.to_owned(),
        operation: match acl.operation {
            3 => BindingOperation::Read,
            4 => BindingOperation::Write,
            _ => return None,
        },
        resource: match acl.resource {
            2 => BindingResource::Topic,
            3 => BindingResource::Group,
            _ => return None,
        },
        pattern: match acl.pattern {
            3 => BindingPattern::Literal,
            4 => BindingPattern::Prefixed,
            _ => return None,
        },
        name: acl.name.to_owned(),
    })
}

fn describe(acl: &Listed<'_>) -> String {
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
        foreign(acl.principal),
        if acl.permission == ALLOW { "allow" } else { "deny" },
        named(&operations, acl.operation),
        named(&resources, acl.resource),
        foreign(acl.name),
        if acl.pattern == 4 { "*" } else { "" },
        if acl.host == EVERY_HOST { String::new() } else { format!(" from {}", foreign(acl.host)) },
    )
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::DescribeAclsResponse;
    use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
    use kafka_protocol::protocol::Encodable;

    use super::*;
    use crate::brokers::kafka::answer::Question;

    /// What is read of an answer that lists these resources.
    fn listed(resources: Vec<DescribeAclsResource>) -> Result<Holdings, Malformed> {
        let mut bytes = BytesMut::new();
        DescribeAclsResponse::default().with_resources(resources).encode(&mut bytes, 3).unwrap();
        let mut reader = Reader::new(&bytes);
        let (_, holdings) = DescribeAclsRequest::read(&mut reader)?;
        reader.end().map(|()| holdings)
    }

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
            let resource = DescribeAclsResource::default()
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
            let holdings = listed(vec![resource]).unwrap();
            assert_eq!(holdings.bindings.into_iter().collect::<Vec<_>>(), [sent]);
        }
    }

    fn denied(name: &str) -> DescribeAclsResource {
        let acl = AclDescription::default()
            .with_principal(text("User:CN=x"))
            .with_host(text("10.0.0.1"))
            .with_operation(7)
            .with_permission_type(2);
        DescribeAclsResource::default()
            .with_resource_type(4)
            .with_resource_name(text(name))
            .with_pattern_type(3)
            .with_acls(vec![acl])
    }

    #[test]
    fn an_acl_that_no_policy_could_create_is_described() {
        let holdings = listed(vec![denied("kafka-cluster")]).unwrap();
        assert_eq!(holdings.foreign, ["User:CN=x: deny Alter on cluster kafka-cluster from 10.0.0.1"]);
        let holdings = listed(vec![denied(&"x".repeat(1 << 20))]).unwrap();
        assert!(holdings.foreign[0].len() < 300, "{}", holdings.foreign[0].len());
    }

    #[test]
    fn a_list_has_a_greatest_length() {
        let mut resource = denied("x");
        resource.acls = vec![AclDescription::default(); MAX_LISTED + 1];
        assert_eq!(listed(vec![resource.clone()]).unwrap_err(), Malformed::TooMany(MAX_LISTED));
        resource.acls.pop();
        assert_eq!(listed(vec![resource]).unwrap().foreign.len(), MAX_LISTED);
    }
}
