// The frames protocol's bytes: what is written is read again, and what is wrong is refused.
#include <gtest/gtest.h>

#include "runtime/frames_wire.h"

namespace pulga {
namespace {

// Everything that was told, in words.
class Notes final : public FrameSink {
 public:
  const char* OnHello(const FramesHello& hello) override {
    return Add("hello " + std::to_string(hello.window) + " " + std::to_string(hello.calls));
  }
  const char* OnHead(uint32_t id, std::string_view payload, FrameEnd end) override {
    return Add("head", id, payload, end);
  }
  const char* OnBody(uint32_t id, std::string_view bytes, FrameEnd end) override {
    return Add("body", id, bytes, end);
  }
  const char* OnCredit(uint32_t id, uint32_t bytes) override {
    return Add("credit", id, std::to_string(bytes), FrameEnd::kMore);
  }
  const char* OnCancel(uint32_t id) override { return Add("cancel", id, "", FrameEnd::kMore); }
  std::string text;

 private:
  const char* Add(const std::string& what) {
    text += what + "; ";
    return nullptr;
  }
  const char* Add(const char* what, uint32_t id, std::string_view more, FrameEnd end) {
    return Add(std::string(what) + " " + std::to_string(id) + " " + std::string(more) +
               (end == FrameEnd::kEnd ? " end" : ""));
  }
};

std::string Hello() {
  std::string out;
  AppendHello({kFramesVersion, 1000, 7}, &out);
  return out;
}

// What is wrong with it after a hello; "" = nothing.
std::string Problem(std::string_view bytes) {
  FrameReader reader;
  Notes notes;
  EXPECT_EQ(reader.Take(Hello(), notes), nullptr);
  const char* problem = reader.Take(bytes, notes);
  return problem == nullptr ? "" : problem;
}

std::string Raw(uint32_t size, uint8_t type, uint8_t flags, uint16_t reserved) {
  std::string out;
  AppendFrame(static_cast<FrameType>(type), 1, static_cast<FrameEnd>(flags), "", &out);
  for (int i = 0; i < 4; ++i) out[static_cast<size_t>(i)] = static_cast<char>(size >> (8 * i));
  out[10] = static_cast<char>(reserved);
  out[11] = static_cast<char>(reserved >> 8);
  return out;
}

TEST(FramesWire, ReadsWhatItWrote) {
  std::string out = Hello();
  AppendFrame(FrameType::kHead, 0x10002, FrameEnd::kMore, "a head", &out);
  AppendFrame(FrameType::kBody, 3, FrameEnd::kEnd, "", &out);
  AppendCredit(4, 0x12345678, &out);
  AppendFrame(FrameType::kCancel, 0xffffffff, FrameEnd::kMore, "", &out);
  FrameReader reader;
  Notes notes;
  EXPECT_EQ(reader.Take(out, notes), nullptr);
  EXPECT_EQ(notes.text,
            "hello 1000 7; head 65538 a head; body 3  end; credit 4 305419896; "
            "cancel 4294967295 ; ");
}

TEST(FramesWire, ItsBytesAreThoseOfTheDocument) {
  std::string out;
  AppendFrame(FrameType::kBody, 0x01020304, FrameEnd::kEnd, "hi", &out);
  EXPECT_EQ(out, std::string("\2\0\0\0\4\3\2\1\3\1\0\0hi", 14));
  EXPECT_EQ(Hello(), std::string("\x10\0\0\0\0\0\0\0\1\0\0\0PFRM\1\0\0\0\xe8\3\0\0\7\0\0\0", 28));
}

TEST(FramesWire, TakesBytesInAnyPieces) {
  std::string out = Hello();
  AppendFrame(FrameType::kHead, 1, FrameEnd::kMore, std::string(300, 'h'), &out);
  AppendCredit(1, 5, &out);
  AppendFrame(FrameType::kHead, 2, FrameEnd::kEnd, "", &out);
  FrameReader whole;
  Notes expected;
  ASSERT_EQ(whole.Take(out, expected), nullptr);
  for (size_t piece = 1; piece < 40; ++piece) {
    FrameReader reader;
    Notes notes;
    for (size_t at = 0; at < out.size(); at += piece) {
      ASSERT_EQ(reader.Take(std::string_view(out).substr(at, piece), notes), nullptr);
    }
    EXPECT_EQ(notes.text, expected.text) << piece;
  }
}

TEST(FramesWire, PassesBodiesOnAsTheyCome) {
  std::string out = Hello();
  AppendFrame(FrameType::kBody, 1, FrameEnd::kEnd, "hello", &out);
  FrameReader reader;
  Notes notes;
  ASSERT_EQ(reader.Take(std::string_view(out).substr(0, out.size() - 2), notes), nullptr);
  ASSERT_EQ(reader.Take(std::string_view(out).substr(out.size() - 2), notes), nullptr);
  EXPECT_EQ(notes.text, "hello 1000 7; body 1 hel; body 1 lo end; ");
}

TEST(FramesWire, RefusesHeadersThatAreWrong) {
  EXPECT_EQ(Problem(Raw(kMaxFramePayload + 1, 3, 0, 0)), "a frame over 64 KiB");
  EXPECT_EQ(Problem(Raw(0xffffffff, 2, 0, 0)), "a frame over 64 KiB");
  EXPECT_EQ(Problem(Raw(kMaxFramePayload, 3, 0, 0)), "");
  EXPECT_EQ(Problem(Raw(0, 0, 0, 0)), "an unknown frame type");
  EXPECT_EQ(Problem(Raw(0, 6, 0, 0)), "an unknown frame type");
  EXPECT_EQ(Problem(Raw(0, 3, 2, 0)), "an unknown frame flag");
  EXPECT_EQ(Problem(Raw(4, 4, 1, 0)), "an unknown frame flag");
  EXPECT_EQ(Problem(Raw(0, 3, 0, 0x100)), "reserved bytes that are not 0");
  EXPECT_EQ(Problem(Raw(3, 4, 0, 0)), "a credit of a wrong size");
  EXPECT_EQ(Problem(Raw(1, 5, 0, 0)), "a cancel with a payload");
  EXPECT_EQ(Problem(Hello()), "a second hello");
}

TEST(FramesWire, RefusesHellosThatAreWrong) {
  const auto problem = [](std::string bytes) {
    FrameReader reader;
    Notes notes;
    const char* found = reader.Take(bytes, notes);
    EXPECT_EQ(notes.text, "");
    return std::string(found == nullptr ? "" : found);
  };
  EXPECT_EQ(problem(Raw(0, 2, 0, 0)), "a frame before its hello");
  EXPECT_EQ(problem(Raw(15, 1, 0, 0)), "its hello is none");
  std::string hello = Hello();
  hello[16] = 2;
  EXPECT_EQ(problem(hello), "it speaks another version of the protocol");
  hello[12] = 'X';
  EXPECT_EQ(problem(hello), "its hello is none");
  std::string none;
  AppendHello({kFramesVersion, 0, 0}, &none);
  EXPECT_EQ(problem(none), "its window is out of range");
}

TEST(FramesWire, ReadsReplyHeads) {
  std::string payload("\x94\x01", 2);  // 404
  for (const char* text :
       {"Content-Length", "5", "A", " b ", "Connection", "x", "X-Call-Id", "1"}) {
    ASSERT_TRUE(AppendFrameString(text, &payload));
  }
  ReplyHead head;
  EXPECT_EQ(ParseReplyHead(payload, &head), nullptr);
  EXPECT_EQ(head.status, 404);
  EXPECT_EQ(head.content_length, 5U);
  EXPECT_EQ(head.headers, (HeaderList{{"A", "b"}}));
  for (const size_t cut : {payload.size() - 1, payload.size() - 4, size_t{3}}) {
    EXPECT_STREQ(ParseReplyHead(payload.substr(0, cut), &head), "a head that is cut off");
  }
  EXPECT_STREQ(ParseReplyHead("x", &head), "a head without a status");
}

TEST(FramesWire, AStringThatDoesNotFitIsLeftOutWhole) {
  std::string payload;
  EXPECT_FALSE(AppendFrameString(std::string(kMaxFrameString + 1, 'x'), &payload));
  EXPECT_TRUE(AppendFrameString(std::string(kMaxFramePayload - 10, 'x'), &payload));
  EXPECT_FALSE(AppendFrameString("1234567", &payload));
  EXPECT_TRUE(AppendFrameString("123456", &payload));
  EXPECT_EQ(payload.size(), kMaxFramePayload);
}

}  // namespace
}  // namespace pulga
