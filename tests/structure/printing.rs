//! What the sources print in its debug form. That form quotes whatever a value holds: a key, a token, the text of a peer.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Macro};

use crate::sources::{self, Sources};

/// Where the debug form of a value is printed, as `file: what is written there`.
pub fn in_debug_form(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for file in sources.files() {
        let mut printed = Printed::default();
        printed.visit_file(sources.code(file));
        found.extend(printed.found.into_iter().map(|text| format!("{file}: {text}")));
    }
    found
}

#[derive(Default)]
struct Printed {
    found: Vec<String>,
}

impl Printed {
    fn look_at(&mut self, tokens: TokenStream) {
        let mut before = None;
        for token in tokens {
            match &token {
                TokenTree::Group(group) => self.look_at(group.stream()),
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    if text.starts_with(['"', 'r']) && has_debug_placeholder(&text) {
                        self.found.push(text);
                    }
                }
                // `?field` and `field = ?value` of tracing; the operator `?` follows an expression.
                TokenTree::Punct(mark) if mark.as_char() == '?' && begins_an_expression(before.as_ref()) => {
                    self.found.push("?field".to_owned());
                }
                _ => {}
            }
            before = Some(token);
        }
    }
}

fn begins_an_expression(before: Option<&TokenTree>) -> bool {
    match before {
        None => true,
        Some(TokenTree::Punct(mark)) => [',', '='].contains(&mark.as_char()),
        Some(_) => false,
    }
}

/// Whether a format string has a placeholder such as `{:?}`, `{name:?}` or `{0:#?}`.
fn has_debug_placeholder(text: &str) -> bool {
    let plain = text.replace("{{", "").replace("}}", "");
    plain.split('{').skip(1).any(|rest| {
        let placeholder = rest.split('}').next().unwrap_or_default();
        placeholder.split_once(':').is_some_and(|(_, form)| form.ends_with('?'))
    })
}

impl<'a> Visit<'a> for Printed {
    fn visit_item(&mut self, item: &'a Item) {
        if !sources::is_for_tests(sources::attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_macro(&mut self, found: &'a Macro) {
        if found.path.is_ident("dbg") {
            self.found.push("dbg!".to_owned());
        }
        if found.tokens.to_string().contains("field :: debug") {
            self.found.push("field::debug".to_owned());
        }
        self.look_at(found.tokens.clone());
    }

    /// `#[error("...")]` is a format string too.
    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if attribute.path().is_ident("error") {
            self.look_at(attribute.meta.to_token_stream());
        }
    }
}

#[test]
fn every_debug_form_is_found_and_no_other_question_mark() {
    let found = |text: &str| {
        let mut printed = Printed::default();
        printed.visit_file(&syn::parse_str(&format!("fn f() {{ {text} }}")).unwrap());
        printed.found.len()
    };
    for printed in [
        r#"format!("{:?}", it)"#,
        r#"println!("{it:?} {}", 1)"#,
        r##"format!(r#"{0:#?}"#, it)"##,
        r#"tracing::warn!(?error, "failed")"#,
        r#"tracing::warn!(part, cause = ?error, "failed")"#,
        r#"tracing::warn!(cause = tracing::field::debug(&error), "failed")"#,
        "if true { dbg!(it); }",
        r#"return Err(format!("{it:?}"))"#,
    ] {
        assert!(found(printed) > 0, "{printed}");
    }
    for plain in [
        r#"format!("{} is {{:?}}: {it}", f()?)"#,
        r#"tracing::warn!(%error, count = count()?, "failed; why?")"#,
        "vec![it?, f(it?)]",
    ] {
        assert_eq!(found(plain), 0, "{plain}");
    }
}
