//! Completes the command line with settings from environment variables and from files.
//!
//! clap would take a variable as it is. Here, an empty variable counts as unset, surrounding white space is ignored,
//! lists may contain blank elements, and every secret can also be read from a file. All of them become further
//! arguments of the command line, so clap treats them like flags. An error names the variable or the file.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::{Resettable, Str};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, Error, FromArgMatches, value_parser};

use crate::secret::read_secret;

/// The prefix of OpenTelemetry's variables, which the names of flags do not have.
const OPEN_TELEMETRY: &str = "OTEL_EXPORTER_";
/// The rule for a setting that is given more than once.
const PRECEDENCE: &str = "A flag wins over a variable, and the variable of a file over that of the value. \
                          A flag and the flag of its file cannot be combined. An empty variable counts as unset.";

/// Parses the command line and the environment of this process. Prints the reason and ends the process when they
/// are invalid, and when the command line requests help.
pub fn parse<C: CommandFactory + FromArgMatches>() -> C {
    try_parse(env::args_os().collect(), &|name| env::var_os(name)).unwrap_or_else(|error| error.exit())
}

/// Parses `arguments`, which begin with the name of the program, and the environment that `variable` looks up.
///
/// # Errors
/// Fails when a value is invalid. Also returns the texts that the command line requests, such as help.
pub fn try_parse<C: CommandFactory + FromArgMatches>(
    mut arguments: Vec<OsString>,
    variable: &dyn Fn(&OsStr) -> Option<OsString>,
) -> Result<C, Error> {
    let declared = command_of::<C>();
    let mut command = without_variables(declared.clone());
    // Determines only the command and the settings that are given, so errors are left to the second attempt.
    let given = match command.clone().ignore_errors(true).try_get_matches_from(&arguments) {
        Ok(given) => given,
        // Help, which shows the variables, or the version.
        Err(text) => return Err(declared.try_get_matches_from(arguments).err().unwrap_or(text)),
    };
    let settings = Environment { given: deepest(&given), variable }.settings_of(&declared, &given)?;
    let command_line = arguments.clone();
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    arguments.splice(end..end, settings.iter().flat_map(|setting| setting.arguments.clone()));
    let matches = command.try_get_matches_from_mut(arguments).map_err(|error| {
        match command.try_get_matches_from_mut(command_line) {
            Err(own) if own.to_string() == error.to_string() => own,
            _ => name_origin(error, &settings),
        }
    })?;
    C::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Returns the command line of `C`, in which each setting that may be a secret has a second argument, for a file that
/// contains it.
pub fn command_of<C: CommandFactory>() -> Command {
    with_files(C::command())
}

fn with_files(command: Command) -> Command {
    let files: Vec<_> = command.get_arguments().filter_map(file_argument).collect();
    let command = if files.is_empty() { command } else { command.after_help(PRECEDENCE) };
    command.args(files).mut_subcommands(with_files)
}

/// Returns the argument for the file of a secret.
fn file_argument(secret: &Arg) -> Option<Arg> {
    let long = secret.get_long()?;
    let variable = secret.get_env()?.to_str()?;
    if !secret.is_hide_env_values_set() {
        return None;
    }
    let name = variable.strip_prefix(OPEN_TELEMETRY).unwrap_or(variable).to_lowercase().replace('_', "-");
    let help = if secret.get_value_delimiter().is_some() {
        format!(
            "File that contains values of --{long}, one per line, to use instead; lines that begin with # are ignored"
        )
    } else {
        format!("File that contains the value of --{long}, to use instead")
    };
    let file = Arg::new(file_id(secret))
        .long(format!("{name}-file"))
        .env(format!("{variable}_FILE"))
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .help(help)
        .help_heading(Resettable::from(
            secret.get_help_heading().map(|heading| Str::from(heading.to_owned())),
        ))
        .display_order(secret.get_display_order());
    Some(file)
}

fn file_id(secret: &Arg) -> String {
    format!("{}_file", secret.get_id())
}

fn without_variables(command: Command) -> Command {
    command.mut_args(|argument| argument.env(Resettable::Reset)).mut_subcommands(without_variables)
}

/// Returns the matches of the innermost command, which include those of global arguments.
fn deepest(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| deepest(inner))
}

/// A setting that the command line leaves open.
struct Setting {
    /// The beginning of the argument in clap's errors.
    argument: String,
    /// The variable or the file that it comes from.
    origin: String,
    /// The arguments to add to the command line.
    arguments: Vec<OsString>,
}

impl Setting {
    /// # Errors
    /// Fails when `text` is a list without a value, such as a comment: the default would take its place silently.
    fn new(argument: &Arg, long: &str, origin: String, text: &str) -> Result<Self, Error> {
        let values = values(text, argument.get_value_delimiter());
        if values.is_empty() {
            return Err(Error::raw(ErrorKind::ValueValidation, format!("{origin} contains no value\n")));
        }
        Ok(Self {
            argument: format!("'--{long} "),
            origin,
            arguments: values.into_iter().map(|value| format!("--{long}={value}").into()).collect(),
        })
    }
}

struct Environment<'a> {
    /// The arguments of the innermost command.
    given: &'a ArgMatches,
    variable: &'a dyn Fn(&OsStr) -> Option<OsString>,
}

impl Environment<'_> {
    /// Returns the settings that are open in `command` and in its subcommand that is given.
    fn settings_of(&self, command: &Command, given: &ArgMatches) -> Result<Vec<Setting>, Error> {
        let mut settings = Vec::new();
        for argument in command.get_arguments() {
            settings.extend(self.setting(argument, given)?);
        }
        if let Some((name, given)) = given.subcommand()
            && let Some(command) = command.find_subcommand(name)
        {
            settings.extend(self.settings_of(command, given)?);
        }
        Ok(settings)
    }

    /// Returns the value of a setting unless the command line contains it: that of the file of a secret, or else that
    /// of the variable. A flag wins over a variable.
    fn setting(&self, argument: &Arg, given: &ArgMatches) -> Result<Option<Setting>, Error> {
        let (Some(long), Some(variable)) = (argument.get_long(), argument.get_env()) else { return Ok(None) };
        let given = if argument.is_global_set() { self.given } else { given };
        let is_given = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
        let is_flag = is_given(argument.get_id().as_str());
        if let Some(file) = file_argument(argument)
            && let (Some(flag), Some(variable)) = (file.get_long(), file.get_env())
        {
            let path = if !is_given(file.get_id().as_str()) {
                let path = if is_flag { None } else { self.value_of(variable)? };
                path.map(|path| (PathBuf::from(path), format!("the variable {}", variable.display())))
            } else if is_flag {
                let text = format!("--{long} and --{flag} cannot be used together\n");
                return Err(Error::raw(ErrorKind::ArgumentConflict, text));
            } else {
                let path = given.get_one::<PathBuf>(file.get_id().as_str());
                path.map(|path| (path.clone(), format!("--{flag}")))
            };
            if let Some((path, named_by)) = path {
                return secret(argument, long, &path, &named_by).map(Some);
            }
        }
        if is_flag {
            return Ok(None);
        }
        let Some(text) = self.value_of(variable)? else { return Ok(None) };
        let origin = format!("the variable {} (--{long})", variable.display());
        Setting::new(argument, long, origin, &text).map(Some)
    }

    /// Returns the trimmed value of a variable, or `None` when it is unset or empty.
    fn value_of(&self, variable: &OsStr) -> Result<Option<String>, Error> {
        let Some(value) = (self.variable)(variable) else { return Ok(None) };
        let Some(text) = value.to_str() else {
            let text = format!("the variable {} is not UTF-8\n", variable.display());
            return Err(Error::raw(ErrorKind::InvalidUtf8, text));
        };
        Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned))
    }
}

/// Reads the setting from a file.
fn secret(argument: &Arg, long: &str, path: &Path, named_by: &str) -> Result<Setting, Error> {
    let origin = format!("the file {} ({named_by})", path.display());
    let refuse = |reason: &str| Error::raw(ErrorKind::Io, format!("{origin} {reason}\n"));
    let text = read_secret(path).map_err(|reason| refuse(&reason))?;
    if argument.get_value_delimiter().is_none() && text.contains('\n') {
        return Err(refuse("has more than one line"));
    }
    Setting::new(argument, long, origin, &text)
}

/// Splits the value of a list. Ignores blank elements, and lines that begin with `#`.
fn values(text: &str, delimiter: Option<char>) -> Vec<&str> {
    let Some(delimiter) = delimiter else { return vec![text] };
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let values = lines.flat_map(|line| line.split(delimiter)).map(str::trim);
    values.filter(|value| !value.is_empty()).collect()
}

/// Replaces the flag in `error`, such as `'--port <PORT>'`, with the variable or the file that the value comes from.
fn name_origin(error: Error, settings: &[Setting]) -> Error {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let named = settings.iter().find_map(|setting| {
        let (before, flag) = text.split_once(&setting.argument)?;
        let (_, after) = flag.split_once('\'')?;
        Some(format!("{before}{}{after}", setting.origin))
    });
    let kind = error.kind();
    named.map_or(error, |text| Error::raw(kind, text))
}
