//! Prints the CRDs.
fn main() {
    for (n, v) in credence::api::crds().unwrap() {
        println!("# {n}\n{v}");
    }
}
