//! The `ottla` program: command line in, exit code out; everything else is in the library.

fn main() -> std::process::ExitCode {
    ottla::cli::main()
}
