//! The fault handler stays for as long as the process does, so its code must: `dlclose` is not to unload it.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
