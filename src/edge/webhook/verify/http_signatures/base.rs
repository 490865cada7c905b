//! The signature base (RFC 9421 section 2.5): every covered component on a line, and then their list.

use std::fmt::Write;

use super::super::error::VerifyError;
use super::super::request::SignedRequest;
use super::super::target::Target;
use super::super::{form, header};
use super::structured::{InnerList, Item, Value};

/// Maximum length of a query in bytes, and maximum number of its parameters, for `@query-param`.
const MAX_QUERY: usize = 8 * 1024;
const MAX_PARAMETERS: usize = 256;

/// Builds the base. Components that are ambiguous are refused.
pub(super) fn signature_base(request: &SignedRequest<'_>, covered: &InnerList<'_>) -> Result<String, VerifyError> {
    let target = Target::of(request)?;
    let mut base = String::new();
    let mut seen = Vec::new();
    for item in &covered.items {
        let identifier = item.to_string();
        let value = component(request, &target, item)?;
        // A line break in a value could pass as another component.
        if seen.contains(&identifier) || !header::is_printable(&value) {
            return Err(VerifyError::MalformedHeader);
        }
        writeln!(base, "{identifier}: {value}").map_err(|_| VerifyError::MalformedHeader)?;
        seen.push(identifier);
    }
    write!(base, "\"@signature-params\": {covered}").map_err(|_| VerifyError::MalformedHeader)?;
    Ok(base)
}

/// The name of a component without parameters.
pub(super) fn plain_name<'a>(item: &Item<'a>) -> Option<&'a str> {
    match &item.value {
        Value::Text(name) if item.parameters.is_empty() => name.plain(),
        _ => None,
    }
}

fn component(request: &SignedRequest<'_>, target: &Target<'_>, item: &Item<'_>) -> Result<String, VerifyError> {
    let Some(name) = plain_name(item) else {
        return query_parameter(target, item);
    };
    let path = if target.path.is_empty() { "/" } else { target.path };
    Ok(match name {
        "@method" => request.method.as_str().to_owned(),
        "@scheme" => target.scheme.to_ascii_lowercase(),
        "@authority" => authority(target),
        "@path" => path.to_owned(),
        "@query" => format!("?{}", target.query.unwrap_or_default()),
        "@request-target" => format!("{path}{}", target.query_part()),
        "@target-uri" => {
            format!("{}://{}{path}{}", target.scheme.to_ascii_lowercase(), authority(target), target.query_part())
        }
        _ if !name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) => {
            header::optional(request.headers, name)?.ok_or(VerifyError::MissingHeader)?.to_owned()
        }
        _ => return Err(VerifyError::MalformedHeader),
    })
}

/// In lower case, without the default port of the scheme.
fn authority(target: &Target<'_>) -> String {
    match target.host_and_port() {
        (host, Some(port)) if port == target.default_port() => host.to_ascii_lowercase(),
        _ => target.authority.to_ascii_lowercase(),
    }
}

/// `"@query-param";name="..."`: a query parameter that occurs exactly once. Components with other parameters are refused.
fn query_parameter(target: &Target<'_>, item: &Item<'_>) -> Result<String, VerifyError> {
    let (Value::Text(component), [("name", Value::Text(wanted))]) = (&item.value, item.parameters.as_slice()) else {
        return Err(VerifyError::MalformedHeader);
    };
    let query = target.query.unwrap_or_default().as_bytes();
    if !component.is("@query-param") || query.len() > MAX_QUERY {
        return Err(VerifyError::MalformedHeader);
    }
    let fields = form::parse(query, MAX_PARAMETERS).ok_or(VerifyError::MalformedHeader)?;
    let mut found = fields.iter().filter(|(name, _)| wanted.is(&form::encode(name)));
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Ok(form::encode(value)),
        _ => Err(VerifyError::MalformedHeader),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::inner_lists;
    use super::*;
    use crate::edge::webhook::verify::testing::Request;

    fn base(request: &Request, covered: &str) -> Result<String, VerifyError> {
        let text = format!("a=({covered});created=1");
        let lists = inner_lists(&text).unwrap();
        signature_base(&request.signed_request(), &lists[0].1)
    }

    /// The value of one component.
    fn value(request: &Request, component: &str) -> Result<String, VerifyError> {
        let base = base(request, component)?;
        Ok(base.split_once(&format!("{component}: ")).unwrap().1.split_once('\n').unwrap().0.to_owned())
    }

    fn request(uri: &str, authority: &str, external_url: Option<&str>) -> Request {
        let (authority, external_url) = (authority.into(), external_url.map(str::to_owned));
        Request { uri: uri.parse().unwrap(), authority, external_url, ..Request::post("") }
    }

    #[test]
    fn derived_components_are_those_of_the_standard() {
        let seen = request("/path?param=value", "WWW.Example.com:443", None);
        for (component, expected) in [
            (r#""@method""#, "POST"),
            (r#""@target-uri""#, "https://www.example.com/path?param=value"),
            (r#""@authority""#, "www.example.com"),
            (r#""@scheme""#, "https"),
            (r#""@request-target""#, "/path?param=value"),
            (r#""@path""#, "/path"),
            (r#""@query""#, "?param=value"),
        ] {
            assert_eq!(value(&seen, component).as_deref(), Ok(expected));
        }
        let outside = request("/seen", "inside:8080", Some("http://out.example:8080/hook"));
        for (component, expected) in [
            (r#""@target-uri""#, "http://out.example:8080/hook"),
            (r#""@authority""#, "out.example:8080"),
            (r#""@scheme""#, "http"),
            (r#""@path""#, "/hook"),
            (r#""@query""#, "?"),
        ] {
            assert_eq!(value(&outside, component).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn query_parameters_are_encoded_anew_and_there_once() {
        let seen = request(
            "/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&d=1&d=2&empty=",
            "example.com",
            None,
        );
        for (name, expected) in [
            ("var", "this%20is%20a%20big%0Amultiline%20value"),
            ("bar", "with%20plus%20whitespace"),
            ("fa%C3%A7ade%22%3A%20", "something"),
            ("empty", ""),
        ] {
            let component = format!(r#""@query-param";name="{name}""#);
            assert_eq!(value(&seen, &component).as_deref(), Ok(expected));
        }
        for name in ["d", "absent", "fa%c3%a7ade%22%3a%20"] {
            let component = format!(r#""@query-param";name="{name}""#);
            assert_eq!(value(&seen, &component), Err(VerifyError::MalformedHeader), "{name}");
        }
    }

    #[test]
    fn headers_are_there_once_and_without_the_blanks_around_them() {
        let seen =
            Request::post("").header("x-a", "  one, two\t").header("x-empty", "").header("x-b", "1").header("x-b", "2");
        assert_eq!(value(&seen, r#""x-a""#).as_deref(), Ok("one, two"));
        assert_eq!(value(&seen, r#""x-empty""#).as_deref(), Ok(""));
        assert_eq!(value(&seen, r#""x-b""#), Err(VerifyError::MalformedHeader));
        assert_eq!(value(&seen, r#""x-c""#), Err(VerifyError::MissingHeader));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let seen = Request::post("").header("x-a", "1");
        for wrong in [
            r#""x-a";sf"#,
            r#""x-a";bs"#,
            r#""x-a";key="a""#,
            r#""x-a";req"#,
            r#""x-a";tr"#,
            r#""x-a" "x-a""#,
            "x-a",
            r#""X-A""#,
            r#""@status""#,
            r#""@unknown""#,
            r#""@signature-params""#,
            r#""@query-param""#,
            r#""""#,
            r#""@method";name="a""#,
            r#""@query-param";name=a"#,
            r#""@query-param";name="a";sf"#,
            "1",
            r#""x\\a""#,
        ] {
            assert_eq!(base(&seen, wrong), Err(VerifyError::MalformedHeader), "{wrong}");
        }
    }

    #[test]
    fn a_line_break_does_not_make_a_component() {
        let seen = Request { authority: "a\n\"x\": y".into(), ..Request::post("") };
        assert_eq!(base(&seen, r#""@authority""#), Err(VerifyError::MalformedHeader));
    }
}
