//! Answers, written once for both protocols: members go into one buffer in their order, as JSON or as XML.

use std::fmt::Display;
use std::io::Write;

use super::error::SqsError;
use crate::hex::write_hex;

/// The namespace of every XML answer.
const NAMESPACE: &str = "http://queue.amazonaws.com/doc/2012-11-05/";

/// Room for what there is but once in an answer, bytes: most need no more.
const ROOM: usize = 512;

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    /// AWS JSON 1.0.
    Json,
    /// Form in, XML out.
    Query,
}

/// What an action answers.
pub(super) trait Answer {
    /// Whether XML has a `Result` element: not of actions that answer nothing.
    const HAS_RESULT: bool = true;

    /// About how many bytes its lists have.
    fn bytes(&self) -> usize {
        0
    }

    /// Writes the members.
    fn write(&self, out: &mut Writer);
}

impl Answer for () {
    const HAS_RESULT: bool = false;

    fn write(&self, _: &mut Writer) {}
}

/// The bytes of an answer in the making. Empty lists and maps leave no trace, as in AWS.
pub(super) struct Writer {
    protocol: Protocol,
    out: Vec<u8>,
    /// Of the innermost JSON object or list: whether something stands in it.
    is_begun: bool,
}

/// The answer of an action that went well.
pub(super) fn success<A: Answer>(protocol: Protocol, action: &str, request_id: &str, answer: &A) -> Vec<u8> {
    let mut writer = Writer::with_room(protocol, ROOM + answer.bytes());
    match protocol {
        Protocol::Json => writer.braces(|out| answer.write(out)),
        Protocol::Query => {
            writer.raw(&["<?xml version=\"1.0\"?><", action, "Response xmlns=\"", NAMESPACE, "\">"]);
            if A::HAS_RESULT {
                writer.raw(&["<", action, "Result>"]);
                answer.write(&mut writer);
                writer.raw(&["</", action, "Result>"]);
            }
            let end = "</RequestId></ResponseMetadata></";
            writer.raw(&["<ResponseMetadata><RequestId>", request_id, end, action, "Response>"]);
        }
    }
    writer.out
}

/// The answer of one that did not.
pub(super) fn failure(protocol: Protocol, request_id: &str, error: &SqsError) -> Vec<u8> {
    let mut writer = Writer::with_room(protocol, ROOM);
    match protocol {
        Protocol::Json => writer.braces(|out| {
            out.text("__type", error.form().json_type);
            out.text("message", &error.to_string());
        }),
        Protocol::Query => {
            writer.raw(&["<?xml version=\"1.0\"?><ErrorResponse xmlns=\"", NAMESPACE, "\"><Error>"]);
            writer.text("Type", if error.is_senders_fault() { "Sender" } else { "Receiver" });
            writer.text("Code", error.form().query_code);
            writer.text("Message", &error.query_message());
            writer.raw(&["<Detail/></Error><RequestId>", request_id, "</RequestId></ErrorResponse>"]);
        }
    }
    writer.out
}

impl Writer {
    fn with_room(protocol: Protocol, bytes: usize) -> Self {
        Self { protocol, out: Vec::with_capacity(bytes), is_begun: false }
    }

    /// A text.
    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.member(name, |out| out.scalar(value));
    }

    /// A text of digits, letters, hyphens and the like: nothing that is written otherwise in either form.
    pub(super) fn word(&mut self, name: &'static str, value: &str) {
        self.member(name, |out| match out.protocol {
            Protocol::Json => out.raw(&["\"", value, "\""]),
            Protocol::Query => out.raw(&[value]),
        });
    }

    /// Bytes as hexadecimal digits.
    pub(super) fn digits(&mut self, name: &'static str, bytes: &[u8]) {
        self.member(name, |out| match out.protocol {
            Protocol::Json => out.enclosed(b'"', b'"', |out| write_hex(bytes, &mut out.out)),
            Protocol::Query => write_hex(bytes, &mut out.out),
        });
    }

    /// The same, if there are some.
    pub(super) fn digits_if(&mut self, name: &'static str, bytes: Option<impl AsRef<[u8]>>) {
        if let Some(bytes) = bytes {
            self.digits(name, bytes.as_ref());
        }
    }

    /// A text, if there is one.
    pub(super) fn text_if(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A number.
    pub(super) fn number(&mut self, name: &'static str, value: i64) {
        self.member(name, |out| out.plain(value));
    }

    /// True or false.
    pub(super) fn flag(&mut self, name: &'static str, value: bool) {
        self.member(name, |out| out.plain(value));
    }

    /// A list of texts; in XML each is an `element`.
    pub(super) fn texts<'t>(
        &mut self,
        name: &'static str,
        element: &'static str,
        texts: impl IntoIterator<Item = &'t str>,
    ) {
        self.items(name, element, texts, |out, text| out.scalar(text));
    }

    /// A list of structures; in XML each is an `element`.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        element: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.items(name, element, items, |out, item| out.structure(|out| write(out, item)));
    }

    /// A map of texts; in XML each entry is an `element` with `key` and `Value`.
    pub(super) fn map<K: AsRef<str>, V: AsRef<str>>(
        &mut self,
        name: &'static str,
        element: &'static str,
        key: &'static str,
        entries: impl IntoIterator<Item = (K, V)>,
    ) {
        self.entries(name, element, key, entries, |out, value| out.scalar(value.as_ref()));
    }

    /// A map of structures; in XML each entry is an `element` with `Name` and `Value`.
    pub(super) fn map_of<K: AsRef<str>, V>(
        &mut self,
        name: &'static str,
        element: &'static str,
        entries: impl IntoIterator<Item = (K, V)>,
        mut write: impl FnMut(&mut Self, V),
    ) {
        self.entries(name, element, "Name", entries, |out, value| out.structure(|out| write(out, value)));
    }

    fn entries<K: AsRef<str>, V>(
        &mut self,
        name: &'static str,
        element: &'static str,
        key: &'static str,
        entries: impl IntoIterator<Item = (K, V)>,
        mut write: impl FnMut(&mut Self, V),
    ) {
        let mut entries = entries.into_iter().peekable();
        if entries.peek().is_none() {
            return;
        }
        match self.protocol {
            Protocol::Json => self.member(name, |out| {
                out.braces(|out| {
                    for (name, value) in entries {
                        out.comma();
                        out.scalar(name.as_ref());
                        out.out.push(b':');
                        write(out, value);
                    }
                });
            }),
            Protocol::Query => {
                for (name, value) in entries {
                    self.member(element, |out| {
                        out.member(key, |out| out.scalar(name.as_ref()));
                        out.member("Value", |out| write(out, value));
                    });
                }
            }
        }
    }

    fn items<T>(
        &mut self,
        name: &'static str,
        element: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return;
        }
        match self.protocol {
            Protocol::Json => self.member(name, |out| {
                out.enclosed(b'[', b']', |out| {
                    for item in items {
                        out.comma();
                        write(out, item);
                    }
                });
            }),
            Protocol::Query => items.for_each(|item| self.member(element, |out| write(out, item))),
        }
    }

    /// A member of what is being written, in either form.
    fn member(&mut self, name: &'static str, write: impl FnOnce(&mut Self)) {
        match self.protocol {
            Protocol::Json => {
                self.comma();
                self.raw(&["\"", name, "\":"]);
                write(self);
            }
            Protocol::Query => {
                self.raw(&["<", name, ">"]);
                write(self);
                self.raw(&["</", name, ">"]);
            }
        }
    }

    fn structure(&mut self, write: impl FnOnce(&mut Self)) {
        match self.protocol {
            Protocol::Json => self.braces(write),
            Protocol::Query => write(self),
        }
    }

    fn braces(&mut self, write: impl FnOnce(&mut Self)) {
        self.enclosed(b'{', b'}', write);
    }

    fn enclosed(&mut self, open: u8, close: u8, write: impl FnOnce(&mut Self)) {
        self.out.push(open);
        self.is_begun = false;
        write(self);
        self.out.push(close);
        self.is_begun = true;
    }

    fn comma(&mut self) {
        if self.is_begun {
            self.out.push(b',');
        }
        self.is_begun = true;
    }

    fn plain(&mut self, value: impl Display) {
        write!(self.out, "{value}").expect("a vector takes all bytes");
    }

    fn scalar(&mut self, text: &str) {
        match self.protocol {
            Protocol::Json => {
                serde_json::to_writer(&mut self.out, text).expect("a vector takes all bytes");
            }
            Protocol::Query => escape(&mut self.out, text),
        }
    }

    fn raw(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.out.extend_from_slice(part.as_bytes()));
    }
}

/// Text as it stands between two tags. A carriage return that is not written as a number would come out as a line feed.
fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    let special = |byte: &u8| matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\'' | b'\r');
    while let Some(place) = rest.iter().position(special) {
        out.extend_from_slice(&rest[..place]);
        let escaped: &str = match rest[place] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\'' => "&apos;",
            _ => "&#xD;",
        };
        out.extend_from_slice(escaped.as_bytes());
        rest = &rest[place + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sample;

    impl Answer for Sample {
        fn write(&self, out: &mut Writer) {
            out.text("MessageId", "a\"<&>\r\n");
            out.number("Count", -5);
            out.flag("SenderFault", true);
            out.text_if("Absent", None);
            out.digits("Digest", &[0x0f, 0xa5]);
            out.texts("QueueUrls", "QueueUrl", ["u1", "u2"]);
            out.texts("None", "None", []);
            out.map("Attributes", "Attribute", "Name", [("A", "1"), ("B", "2")]);
            out.list("Messages", "Message", [1, 2], |out, number| {
                out.number("N", number);
                out.map_of("MessageAttributes", "MessageAttribute", [("x", "y")], |out, value| {
                    out.text("StringValue", value);
                    out.text("DataType", "String");
                });
            });
            out.map("Tags", "Tag", "Key", [("k", "v")]);
            out.map::<&str, &str>("Nothing", "Nothing", "Name", []);
        }
    }

    #[test]
    fn an_answer_is_the_same_in_both_protocols() {
        let json = String::from_utf8(success(Protocol::Json, "Sample", "id", &Sample)).unwrap();
        assert_eq!(
            json,
            r#"{"MessageId":"a\"<&>\r\n","Count":-5,"SenderFault":true,"Digest":"0fa5","QueueUrls":["u1","u2"],"Attributes":{"A":"1","B":"2"},"#
                .to_owned()
                + r#""Messages":[{"N":1,"MessageAttributes":{"x":{"StringValue":"y","DataType":"String"}}},"#
                + r#"{"N":2,"MessageAttributes":{"x":{"StringValue":"y","DataType":"String"}}}],"Tags":{"k":"v"}}"#
        );
        let xml = String::from_utf8(success(Protocol::Query, "Sample", "id", &Sample)).unwrap();
        let attribute = "<MessageAttribute><Name>x</Name><Value><StringValue>y</StringValue><DataType>String</DataType></Value></MessageAttribute>";
        assert_eq!(
            xml,
            "<?xml version=\"1.0\"?><SampleResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\"><SampleResult>"
                .to_owned()
                + "<MessageId>a&quot;&lt;&amp;&gt;&#xD;\n</MessageId><Count>-5</Count><SenderFault>true</SenderFault>"
                + "<Digest>0fa5</Digest><QueueUrl>u1</QueueUrl><QueueUrl>u2</QueueUrl>"
                + "<Attribute><Name>A</Name><Value>1</Value></Attribute><Attribute><Name>B</Name><Value>2</Value></Attribute>"
                + &format!("<Message><N>1</N>{attribute}</Message><Message><N>2</N>{attribute}</Message>")
                + "<Tag><Key>k</Key><Value>v</Value></Tag>"
                + "</SampleResult><ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></SampleResponse>"
        );
    }

    #[test]
    fn an_action_that_answers_nothing_has_no_result() {
        assert_eq!(success(Protocol::Json, "PurgeQueue", "id", &()), b"{}");
        let xml = String::from_utf8(success(Protocol::Query, "PurgeQueue", "id", &())).unwrap();
        assert_eq!(
            xml,
            "<?xml version=\"1.0\"?><PurgeQueueResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\">\
             <ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></PurgeQueueResponse>"
        );
    }

    #[test]
    fn errors_stand_as_each_protocol_wants_them() {
        let json = failure(Protocol::Json, "id", &SqsError::QueueDoesNotExist);
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The specified queue does not exist."}"#
        );
        let xml = failure(Protocol::Query, "id", &SqsError::QueueDoesNotExist);
        assert_eq!(
            String::from_utf8(xml).unwrap(),
            "<?xml version=\"1.0\"?><ErrorResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\"><Error>\
             <Type>Sender</Type><Code>AWS.SimpleQueueService.NonExistentQueue</Code>\
             <Message>The specified queue does not exist for this wsdl version.</Message><Detail/></Error>\
             <RequestId>id</RequestId></ErrorResponse>"
        );
    }
}
