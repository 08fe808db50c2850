// How an image is fetched when everything that can happen happens: a registry in memory that cuts,
// stalls, redirects, asks for credentials and lies.
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>

#include "base/text.h"
#include "images/fetch/registry_client.h"

namespace pulga {
namespace {

struct Answer {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  HttpEnd::Kind end = HttpEnd::Kind::kComplete;
};

// Asks `serve` for every answer; time passes only in Wait.
class FakeTransport final : public HttpTransport {
 public:
  explicit FakeTransport(FakeClock& clock) : clock_(clock) {}
  std::function<Answer(const HttpOrder&)> serve;
  std::vector<HttpOrder> orders;
  size_t most_open = 0;

  void Start(const HttpOrder& order, HttpReceiver& receiver) override {
    orders.push_back(order);
    open_.emplace_back(order, &receiver);
    most_open = std::max(most_open, open_.size());
  }

  Status Wait(Duration most) override {
    if (open_.empty()) {
      EXPECT_LT(++idle_, 1000) << "waits for ever";
      clock_.Advance(most);
      return OkStatus();
    }
    const auto [order, receiver] = open_.front();
    open_.pop_front();
    Deliver(order, *receiver);
    return OkStatus();
  }

 private:
  void Deliver(const HttpOrder& order, HttpReceiver& receiver) {
    const Answer answer = serve(order);
    const bool headless = answer.end == HttpEnd::Kind::kUnreachable ||
                          answer.end == HttpEnd::Kind::kForbidden ||
                          answer.end == HttpEnd::Kind::kUntrusted;
    HttpEnd end{answer.end, "told", AddressKind::kPublic};
    if (!headless) {
      bool on = receiver.OnHead({answer.status, answer.headers});
      for (size_t at = 0; on && at < answer.body.size(); at += 7) {
        on = receiver.OnBytes(std::string_view(answer.body).substr(at, 7));
      }
      if (!on) end.kind = HttpEnd::Kind::kStopped;
    }
    receiver.OnEnd(end);
  }

  FakeClock& clock_;
  std::deque<std::pair<HttpOrder, HttpReceiver*>> open_;
  int idle_ = 0;
};

class MemorySink final : public FetchSink {
 public:
  Status Document(const std::string& name, const std::string& bytes) override {
    documents[name] = bytes;
    names.push_back(name);
    return OkStatus();
  }
  Status WriteBlob(uint64_t offset, std::string_view bytes) override {
    if (output.size() < offset + bytes.size()) output.resize(offset + bytes.size());
    output.replace(offset, bytes.size(), bytes);
    return OkStatus();
  }
  Status BlobDone(const WantedBlob& blob) override {
    done.push_back(blob.digest.hex);
    return OkStatus();
  }
  Status Progress(size_t, uint64_t bytes) override {
    progress.push_back(bytes);
    return OkStatus();
  }
  std::map<std::string, std::string> documents;
  std::vector<std::string> names;
  std::string output;
  std::vector<std::string> done;
  std::vector<uint64_t> progress;
};

std::string HeaderOf(const HttpOrder& order, std::string_view name) {
  for (const std::string& header : order.headers) {
    if (header.starts_with(std::string(name) + ": ")) return header.substr(name.size() + 2);
  }
  return "";
}

class Fetching : public ::testing::Test {
 protected:
  Fetching() : transport(clock) {
    order.ref = "r.example/app:1";
    order.host = {{"linux", "amd64", ""}, Arm32::kNot};
    order.max_bytes = 1 << 20;
  }

  Status Run() {
    RegistryClient client(order, transport, clock, RetryRules{}, sink);
    return client.Run();
  }
  void WantBlob(const std::string& content) {
    order.kind = FetchKind::kBlobs;
    order.blobs.push_back({{DigestAlgorithm::kSha256, Sha256Hex(content)}, content.size(), used});
    used += content.size();
    blobs["/v2/app/blobs/sha256:" + Sha256Hex(content)] = content;
  }
  // Serves `blobs` by path, ranges too.
  Answer Serve(const HttpOrder& asked) {
    const auto it = blobs.find(asked.url.target);
    if (it == blobs.end()) return {404, {}, R"({"errors":[{"message":"unknown"}]})"};
    const std::string range = HeaderOf(asked, "Range");
    if (range.empty()) {
      return {200, {{"content-length", std::to_string(it->second.size())}}, it->second};
    }
    const size_t from = *ParseUint(std::string_view(range).substr(6, range.size() - 7));
    const std::string whole = std::to_string(it->second.size());
    return {206,
            {{"content-range", "bytes " + std::to_string(from) + "-/" + whole}},
            it->second.substr(from)};
  }
  std::string Put(const std::string& kind, const std::string& bytes) {
    blobs["/v2/app/" + kind + "/sha256:" + Sha256Hex(bytes)] = bytes;
    return R"({"digest":"sha256:)" + Sha256Hex(bytes) + R"(","size":)" +
           std::to_string(bytes.size());
  }
  std::string PutImage(const std::string& config) {
    return R"({"schemaVersion":2,"config":)" + Put("blobs", config) + R"(},"layers":[]})";
  }

  FakeClock clock;
  FakeTransport transport;
  MemorySink sink;
  FetchOrder order;
  std::map<std::string, std::string> blobs;
  uint64_t used = 0;
};

TEST_F(Fetching, LayersGoToTheirPlacesAFewAtATime) {
  for (const char* content : {"one", "two2", "three33", "four444"}) WantBlob(content);
  transport.serve = [&](const HttpOrder& asked) { return Serve(asked); };
  const Status done = Run();
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(sink.output, "onetwo2three33four444");
  EXPECT_EQ(sink.done.size(), 4u);
  EXPECT_EQ(transport.most_open, 3u);
}

TEST_F(Fetching, ACutBlobGoesOnWhereItWasCut) {
  WantBlob(std::string(100, 'x') + "end");
  int cuts = 0;
  transport.serve = [&](const HttpOrder& asked) {
    Answer answer = Serve(asked);
    if (++cuts <= 5) {
      answer.body.resize(20);
      answer.end = HttpEnd::Kind::kBroken;
    }
    return answer;
  };
  ASSERT_TRUE(Run().ok());
  ASSERT_EQ(transport.orders.size(), 6u);
  EXPECT_EQ(HeaderOf(transport.orders[0], "Range"), "");
  EXPECT_EQ(HeaderOf(transport.orders[5], "Range"), "bytes=100-");
  EXPECT_TRUE(sink.output.ends_with("xend"));
}

TEST_F(Fetching, ARegistryWithoutRangesStartsOver) {
  WantBlob("the whole of it again");
  int tries = 0;
  transport.serve = [&](const HttpOrder& asked) {
    HttpOrder whole = asked;
    whole.headers.clear();
    Answer answer = Serve(whole);
    if (++tries == 1) {
      answer.body.resize(9);
      answer.end = HttpEnd::Kind::kBroken;
    }
    return answer;
  };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(sink.output, "the whole of it again");
  EXPECT_EQ(sink.done.size(), 1u);
}

TEST_F(Fetching, APartThatBeginsElsewhereIsNotTaken) {
  WantBlob("0123456789");
  int tries = 0;
  transport.serve = [&](const HttpOrder& asked) {
    Answer answer = Serve(asked);
    if (++tries == 1) {
      answer.body.resize(7);
      answer.end = HttpEnd::Kind::kBroken;
    } else if (tries == 2) {
      answer = {206, {{"content-range", "bytes 3-9/10"}}, "3456789"};
    }
    return answer;
  };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(sink.output, "0123456789");
}

TEST_F(Fetching, GivesUpWhenNothingMoreComes) {
  WantBlob("never");
  transport.serve = [](const HttpOrder&) { return Answer{200, {}, "", HttpEnd::Kind::kBroken}; };
  const TimePoint begun = clock.Now();
  const Status done = Run();
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().code, Code::kUnavailable);
  EXPECT_EQ(transport.orders.size(), 6u);
  EXPECT_GT(clock.Now() - begun, std::chrono::seconds(10));  // it backed off
  EXPECT_LT(clock.Now() - begun, std::chrono::seconds(60));
}

TEST_F(Fetching, AnUnreachableRegistryIsToldSoon) {
  WantBlob("x");
  transport.serve = [](const HttpOrder&) { return Answer{0, {}, "", HttpEnd::Kind::kUnreachable}; };
  const TimePoint begun = clock.Now();
  EXPECT_EQ(Run().error().code, Code::kUnavailable);
  EXPECT_LT(clock.Now() - begun, std::chrono::seconds(3));
}

TEST_F(Fetching, WaitsAsLongAsTheRegistryAsks) {
  WantBlob("x");
  int tries = 0;
  transport.serve = [&](const HttpOrder& asked) {
    return ++tries == 1 ? Answer{429, {{"retry-after", "7"}}, ""} : Serve(asked);
  };
  const TimePoint begun = clock.Now();
  ASSERT_TRUE(Run().ok());
  EXPECT_GE(clock.Now() - begun, std::chrono::seconds(7));
}

TEST_F(Fetching, DoesNotWaitForHours) {
  WantBlob("x");
  transport.serve = [](const HttpOrder&) { return Answer{429, {{"retry-after", "7200"}}, ""}; };
  const Status done = Run();
  EXPECT_EQ(transport.orders.size(), 1u);
  EXPECT_NE(done.error().message.find("7200 s"), std::string::npos) << done.error().message;
}

TEST_F(Fetching, AWrongDigestIsRefused) {
  WantBlob("good");
  blobs.begin()->second = "evil";
  transport.serve = [&](const HttpOrder& asked) { return Serve(asked); };
  const Status done = Run();
  EXPECT_EQ(done.error().code, Code::kInvalidArgument);
  EXPECT_TRUE(sink.done.empty());
}

TEST_F(Fetching, MoreBytesThanPromisedAreNotTaken) {
  WantBlob("four");
  blobs.begin()->second = std::string(1000, 'x');
  transport.serve = [&](const HttpOrder& asked) {
    Answer answer = Serve(asked);
    answer.headers.clear();  // not even told
    return answer;
  };
  EXPECT_EQ(Run().error().code, Code::kInvalidArgument);
  EXPECT_LE(sink.output.size(), 7u);
}

// --- credentials

TEST_F(Fetching, BasicCredentialsAreSentOnceAskedFor) {
  WantBlob("x");
  order.login = {"me", "pw", "", ""};
  const std::string expected = "Basic " + Base64Encode("me:pw");
  transport.serve = [&](const HttpOrder& asked) {
    if (HeaderOf(asked, "Authorization") == expected) return Serve(asked);
    return Answer{401, {{"www-authenticate", "Basic realm=\"r\""}}, ""};
  };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(HeaderOf(transport.orders[0], "Authorization"), "");
}

TEST_F(Fetching, TokensComeFromTheTokenServerAndAreSharedByAllLayers) {
  for (const char* content : {"1", "22", "333"}) WantBlob(content);
  order.login = {"me", "pw", "", ""};
  int tokens = 0;
  transport.serve = [&](const HttpOrder& asked) {
    if (asked.url.host == "auth.example") {
      ++tokens;
      EXPECT_EQ(HeaderOf(asked, "Authorization"), "Basic " + Base64Encode("me:pw"));
      return Answer{200, {}, R"({"token":"t1"})"};
    }
    if (HeaderOf(asked, "Authorization") == "Bearer t1") return Serve(asked);
    return Answer{401, {{"www-authenticate", R"(Bearer realm="https://auth.example/t")"}}, ""};
  };
  const Status done = Run();
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(tokens, 1);
}

TEST_F(Fetching, AnExpiredTokenIsRenewedInTheMiddle) {
  WantBlob(std::string(40, 'y'));
  int tokens = 0;
  int served = 0;
  transport.serve = [&](const HttpOrder& asked) {
    if (asked.url.host == "auth.example") {
      return Answer{200, {}, R"({"token":"t)" + std::to_string(++tokens) + "\"}"};
    }
    if (HeaderOf(asked, "Authorization") != "Bearer t" + std::to_string(served == 0 ? 1 : 2)) {
      return Answer{401, {{"www-authenticate", R"(Bearer realm="https://auth.example/t")"}}, ""};
    }
    Answer answer = Serve(asked);
    if (++served == 1) {
      answer.body.resize(14);
      answer.end = HttpEnd::Kind::kBroken;
    }
    return answer;
  };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(tokens, 2);
}

TEST_F(Fetching, TokensOfASlowLinkExpireAgainAndAgain) {
  WantBlob(std::string(100, 'y'));
  int tokens = 0;
  int valid = 0;  // for one connection
  transport.serve = [&](const HttpOrder& asked) {
    if (asked.url.host == "auth.example") {
      valid = ++tokens;
      return Answer{200, {}, R"({"token":"t)" + std::to_string(tokens) + "\"}"};
    }
    if (valid == 0 || HeaderOf(asked, "Authorization") != "Bearer t" + std::to_string(valid)) {
      return Answer{401, {{"www-authenticate", R"(Bearer realm="https://auth.example/t")"}}, ""};
    }
    valid = 0;
    Answer answer = Serve(asked);
    if (answer.body.size() > 14) {
      answer.body.resize(14);
      answer.end = HttpEnd::Kind::kBroken;
    }
    return answer;
  };
  const Status done = Run();
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(tokens, 8);
  EXPECT_EQ(sink.output, std::string(100, 'y'));
}

TEST_F(Fetching, WrongCredentialsEndIt) {
  WantBlob("x");
  order.login = {"me", "pw", "", ""};
  transport.serve = [](const HttpOrder&) {
    return Answer{401, {{"www-authenticate", "Basic realm=\"r\""}}, ""};
  };
  const Status done = Run();
  EXPECT_EQ(done.error().code, Code::kPermission);
  EXPECT_EQ(done.error().message.find("pw"), std::string::npos);
  EXPECT_LE(transport.orders.size(), 3u);
}

TEST_F(Fetching, RedirectsElsewhereGetNoCredentials) {
  WantBlob("x");
  order.login = {"me", "pw", "", ""};
  transport.serve = [&](const HttpOrder& asked) {
    if (asked.url.host == "storage.example") {
      EXPECT_EQ(HeaderOf(asked, "Authorization"), "");
      // Its challenge is nobody's business.
      return asked.url.target == "/asks"
                 ? Answer{401, {{"www-authenticate", R"(Bearer realm="https://evil/t")"}}, ""}
                 : Answer{200, {}, "x"};
    }
    if (HeaderOf(asked, "Authorization").empty()) {
      return Answer{401, {{"www-authenticate", "Basic realm=\"r\""}}, ""};
    }
    return Answer{307, {{"location", "https://storage.example/b?sig=1"}}, ""};
  };
  ASSERT_TRUE(Run().ok());
  // The registry was reached at a public address: the storage must have one, too.
  EXPECT_EQ(transport.orders.back().reach.most_private, AddressKind::kPublic);
}

TEST_F(Fetching, ChallengesOfARedirectsTargetAreNotAnswered) {
  WantBlob("x");
  order.login = {"me", "pw", "", ""};
  transport.serve = [&](const HttpOrder& asked) {
    EXPECT_NE(asked.url.host, "evil.example");
    if (asked.url.host == "storage.example") {
      return Answer{401, {{"www-authenticate", R"(Bearer realm="https://evil.example/t")"}}, ""};
    }
    return Answer{307, {{"location", "https://storage.example/b"}}, ""};
  };
  EXPECT_EQ(Run().error().code, Code::kPermission);
}

TEST_F(Fetching, RedirectsToPlainHttpAndOtherSchemesAreRefused) {
  WantBlob("x");
  for (const char* where : {"http://r.example/b", "file:///etc/passwd", "ftp://h/x"}) {
    transport.orders.clear();
    transport.serve = [&](const HttpOrder&) { return Answer{302, {{"location", where}}, ""}; };
    EXPECT_FALSE(Run().ok()) << where;
    EXPECT_EQ(transport.orders.size(), 1u) << where;
  }
}

TEST_F(Fetching, RedirectsEndSomeday) {
  WantBlob("x");
  transport.serve = [](const HttpOrder& asked) {
    return Answer{302, {{"location", asked.url.target + "x"}}, ""};
  };
  EXPECT_FALSE(Run().ok());
  EXPECT_EQ(transport.orders.size(), 6u);
}

TEST_F(Fetching, RefreshTokensAreNotCarriedOn) {
  WantBlob("x");
  order.login = {"", "", "refresh", ""};
  transport.serve = [&](const HttpOrder& asked) {
    EXPECT_NE(asked.url.host, "evil.example");
    if (asked.url.host == "auth.example") {
      return Answer{307, {{"location", "https://evil.example/"}}, ""};
    }
    return Answer{401, {{"www-authenticate", R"(Bearer realm="https://auth.example/t")"}}, ""};
  };
  EXPECT_FALSE(Run().ok());
}

TEST_F(Fetching, ATokenServerWithoutTlsIsNotTrusted) {
  WantBlob("x");
  order.login = {"me", "pw", "", ""};
  transport.serve = [&](const HttpOrder& asked) {
    EXPECT_EQ(asked.url.host, "r.example");
    return Answer{401, {{"www-authenticate", R"(Bearer realm="http://auth.example/t")"}}, ""};
  };
  EXPECT_EQ(Run().error().code, Code::kPermission);
}

// --- documents

TEST_F(Fetching, AnIndexLeadsToThisBoardsImage) {
  const std::string mine = PutImage(R"({"os":"linux","architecture":"amd64"})");
  const std::string other = PutImage(R"({"os":"linux","architecture":"arm64"})");
  const std::string index = R"({"schemaVersion":2,"manifests":[)" + Put("manifests", other) +
                            R"(,"platform":{"os":"linux","architecture":"arm64"}},)" +
                            Put("manifests", mine) +
                            R"(,"platform":{"os":"linux","architecture":"amd64"}}]})";
  blobs["/v2/app/manifests/1"] = index;
  transport.serve = [&](const HttpOrder& asked) { return Serve(asked); };
  const Status done = Run();
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(sink.names.back(), "index.json");
  EXPECT_EQ(sink.documents.count("blobs/sha256/" + Sha256Hex(mine)), 1u);
  EXPECT_EQ(sink.documents.count("blobs/sha256/" + Sha256Hex(other)), 0u);
  EXPECT_NE(sink.documents["index.json"].find(Sha256Hex(index)), std::string::npos);
}

TEST_F(Fetching, OtherBoardsImagesAreNamed) {
  const std::string other = PutImage("{}");
  blobs["/v2/app/manifests/1"] = R"({"schemaVersion":2,"manifests":[)" + Put("manifests", other) +
                                 R"(,"platform":{"os":"linux","architecture":"s390x"}}]})";
  transport.serve = [&](const HttpOrder& asked) { return Serve(asked); };
  const Status done = Run();
  EXPECT_EQ(done.error().code, Code::kUnsupported);
  EXPECT_NE(done.error().message.find("linux/s390x, this board is linux/amd64"), std::string::npos);
}

TEST_F(Fetching, ADigestInTheNameMustBeWhatComes) {
  const std::string manifest = PutImage("{}");
  order.ref = "r.example/app@sha256:" + Sha256Hex("something else");
  blobs["/v2/app/manifests/sha256:" + Sha256Hex("something else")] = manifest;
  transport.serve = [&](const HttpOrder& asked) { return Serve(asked); };
  EXPECT_EQ(Run().error().code, Code::kInvalidArgument);
  EXPECT_TRUE(sink.documents.empty());
}

TEST_F(Fetching, OversizeManifestsAreRefused) {
  transport.serve = [](const HttpOrder&) {
    return Answer{200, {}, std::string((4 << 20) + 1, ' ')};
  };
  EXPECT_EQ(Run().error().code, Code::kTooLarge);
}

TEST_F(Fetching, AMissingImageIsToldInTheRegistrysWords) {
  transport.serve = [&](const HttpOrder& asked) { return Serve(asked); };
  const Status done = Run();
  EXPECT_EQ(done.error().code, Code::kNotFound);
  EXPECT_NE(done.error().message.find("(unknown)"), std::string::npos);
}

}  // namespace
}  // namespace pulga
