//! The content of the Secret of a broker account: a `client.properties` for Kafka's Java tools, and the entries of the Service
//! Binding specification for Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

use crate::domain::identity::digest;
use crate::domain::secret::SecretText;

/// Addresses and authorities that a client needs besides its own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAccess {
    /// Servers to connect to first, each as `host:port`.
    pub bootstrap_servers: Vec<String>,
    /// The roots that the certificates of the brokers are verified with, in PEM.
    pub ca_pem: String,
}

impl ClientAccess {
    /// The entries of the Secret of an account.
    pub const ENTRIES: &[&str] = &[
        "type",
        "provider",
        "host",
        "port",
        "bootstrap-servers",
        "security-protocol",
        "principal",
        "tls.crt",
        "tls.key",
        "ca.crt",
        "client.properties",
    ];

    /// A digest of all fields.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(self.bootstrap_servers.iter().map(String::as_str).chain([self.ca_pem.as_str()]))
    }

    /// The data of the Secret of an account.
    #[must_use]
    pub fn secret_data(&self, principal: &str, chain_pem: &str, key: &SecretText) -> BTreeMap<String, ByteString> {
        let servers = self.bootstrap_servers.join(",");
        let (host, port) =
            self.bootstrap_servers.first().and_then(|server| server.rsplit_once(':')).unwrap_or_default();
        let properties = self.client_properties(chain_pem, key);
        [
            ("type", "kafka"),
            ("provider", "credence"),
            ("host", host),
            ("port", port),
            ("bootstrap-servers", &servers),
            ("security-protocol", "SSL"),
            ("principal", principal),
            ("tls.crt", chain_pem),
            ("tls.key", key.expose()),
            ("ca.crt", &self.ca_pem),
            ("client.properties", properties.expose()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), ByteString(value.as_bytes().to_vec())))
        .collect()
    }

    /// The file holds the PEM texts itself (KIP-651), so it works at any mount path.
    fn client_properties(&self, chain_pem: &str, key: &SecretText) -> SecretText {
        let lines = [
            ("bootstrap.servers", self.bootstrap_servers.join(",")),
            ("security.protocol", "SSL".to_owned()),
            ("ssl.keystore.type", "PEM".to_owned()),
            ("ssl.keystore.certificate.chain", one_line(chain_pem)),
            ("ssl.keystore.key", one_line(key.expose())),
            ("ssl.truststore.type", "PEM".to_owned()),
            ("ssl.truststore.certificates", one_line(&self.ca_pem)),
        ];
        SecretText::new(lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect())
    }
}

/// A PEM text as the value of a Java properties file: `\n` is a line feed.
fn one_line(pem: &str) -> String {
    pem.trim_end().lines().collect::<Vec<_>>().join("\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_properties_have_each_pem_in_one_line() {
        let access = ClientAccess { bootstrap_servers: vec!["a:1".into(), "b:2".into()], ca_pem: "CA\nROOT\n".into() };
        let data = access.secret_data("User:CN=x", "LEAF\nCHAIN\n", &SecretText::new("KEY\n".into()));
        let text = String::from_utf8(data["client.properties"].0.clone()).unwrap();
        assert!(text.contains("bootstrap.servers=a:1,b:2\n"));
        assert!(text.contains("ssl.keystore.certificate.chain=LEAF\\nCHAIN\n"));
        assert!(text.contains("ssl.truststore.certificates=CA\\nROOT\n"));
        assert_eq!(text.lines().count(), 7);
        let mut entries = ClientAccess::ENTRIES.to_vec();
        entries.sort_unstable();
        assert_eq!(data.keys().collect::<Vec<_>>(), entries);
        assert_eq!(data["host"].0, b"a");
    }
}
