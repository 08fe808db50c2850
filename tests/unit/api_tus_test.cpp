// The tus protocol over a real loopback connection, the real ResumableUploads and an importer in
// memory.
#include <fcntl.h>
#include <unistd.h>

#include "api/native/tus_rules.h"
#include "base/file_io.h"
#include "tests/support/loopback.h"

namespace pulga::testing {
namespace {

TEST(TusRules, MetadataIsKeysWithBase64) {
  const auto parsed = ParseUploadMetadata("ref aGVsbG86MQ==,any_platform MQ==, empty ,flag");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->at("ref"), "hello:1");
  EXPECT_EQ(parsed->at("any_platform"), "1");
  EXPECT_EQ(parsed->at("empty") + parsed->at("flag"), "");
  EXPECT_TRUE(ParseUploadMetadata("")->empty());
}

TEST(TusRules, BadMetadataIsRefused) {
  for (const char* bad :
       {",", "a b,", "a b==c", "a *", "a YQ==,a YQ==", "\xc3\xa4 YQ==", "a\x01 YQ=="}) {
    EXPECT_FALSE(ParseUploadMetadata(bad).ok()) << bad;
  }
  EXPECT_FALSE(ParseUploadMetadata("a " + std::string(5000, 'A')).ok());
}

TEST(TusRules, NumbersAreDigitsAlone) {
  HttpRequest request;
  for (const char* bad : {"", "-1", "+1", "1 ", "0x1", "1,1", "9223372036854775808", "1e3"}) {
    request.headers = {{"Upload-Length", bad}};
    EXPECT_FALSE(TusNumber(request, "Upload-Length").ok()) << bad;
  }
  request.headers = {{"upload-length", "12"}};
  EXPECT_EQ(*TusNumber(request, "Upload-Length"), 12U);
  EXPECT_FALSE(TusNumber(request, "Upload-Offset").ok());
}

TEST(TusRules, DatesAreThoseOfHttp) {
  EXPECT_EQ(HttpDate(1403712000999), "Wed, 25 Jun 2014 16:00:00 GMT");
}

class TusTest : public Loopback {
 protected:
  void SetUp() override {
    Start();
    OnLoop([this] {
      engine_->import_report.images = {SampleImage("new:1")};
      return 0;
    });
  }
  static bool Has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
  }
  static std::string Head(const std::string& line, const std::string& headers, size_t size) {
    return line + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n" + headers +
           "Content-Length: " + std::to_string(size) + "\r\n";
  }
  std::string Tus(const std::string& line, const std::string& headers = "",
                  const std::string& body = "") {
    return Ask(Head(line, "Tus-Resumable: 1.0.0\r\n" + headers, body.size()), body);
  }
  // The path of a new upload.
  std::string Begin(size_t length, const std::string& headers = "") {
    const std::string reply =
        Tus("POST /v1/uploads", "Upload-Length: " + std::to_string(length) + "\r\n" + headers);
    EXPECT_EQ(StatusOf(reply), 201) << reply;
    const size_t at = reply.find("Location: ") + 10;
    return reply.substr(at, reply.find('\r', at) - at);
  }
  std::string Patch(const std::string& path, size_t offset, const std::string& body) {
    return Tus("PATCH " + path, PatchHeaders(offset), body);
  }
  static std::string PatchHeaders(size_t offset) {
    return "Content-Type: application/offset+octet-stream\r\nUpload-Offset: " +
           std::to_string(offset) + "\r\n";
  }
  // A PATCH that announces `size` bytes, sends `body`, and is still open.
  void SendPart(RawClient& client, const std::string& path, const std::string& body, size_t size) {
    client.Send(Head("PATCH " + path, "Tus-Resumable: 1.0.0\r\n" + PatchHeaders(0), size) + "\r\n" +
                body);
  }
  bool ComesTo(const std::string& path, size_t offset) {
    const std::string wanted = "Upload-Offset: " + std::to_string(offset) + "\r\n";
    for (int i = 0; i < 300; ++i) {
      if (Has(Tus("HEAD " + path), wanted)) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
};

TEST_F(TusTest, OptionsTellWhatThereIs) {
  const std::string reply = Admin("OPTIONS /v1/uploads");
  EXPECT_EQ(StatusOf(reply), 204);
  EXPECT_TRUE(Has(reply, "Tus-Version: 1.0.0\r\n")) << reply;
  EXPECT_TRUE(Has(reply, "Tus-Extension: creation,termination,expiration\r\n"));
  EXPECT_TRUE(Has(reply, "Tus-Max-Size: 8589934592\r\n"));
  EXPECT_EQ(StatusOf(Call("OPTIONS /v1/uploads")), 401);
}

TEST_F(TusTest, PartsMakeAnArchiveThatIsImported) {
  const std::string path = Begin(10, "Upload-Metadata: ref bmV3OjE=,any_platform MQ==\r\n");
  const std::string first = Patch(path, 0, "0123");
  EXPECT_EQ(StatusOf(first), 204) << first;
  EXPECT_TRUE(Has(first, "Upload-Offset: 4\r\n"));
  EXPECT_TRUE(Has(first, "Upload-Expires: "));
  const std::string head = Tus("HEAD " + path);
  EXPECT_EQ(StatusOf(head), 200);
  for (const char* line :
       {"Upload-Offset: 4\r\n", "Upload-Length: 10\r\n", "Cache-Control: no-store\r\n",
        "Tus-Resumable: 1.0.0\r\n", "Upload-Metadata: ref bmV3OjE=,any_platform MQ==\r\n"}) {
    EXPECT_TRUE(Has(head, line)) << line << head;
  }
  const std::string last = Patch(path, 4, "456789");
  EXPECT_EQ(StatusOf(last), 204) << last;
  EXPECT_TRUE(Has(last, "Upload-Offset: 10\r\n"));
  EXPECT_EQ(OnLoop([this] { return engine_->uploaded; }), "0123456789");
  EXPECT_EQ(OnLoop([this] { return engine_->upload_options.ref; }), "new:1");
  EXPECT_TRUE(Has(Admin("GET " + path), "\"state\":\"imported\""));
  EXPECT_TRUE(Has(Admin("GET /v1/uploads"), "\"ref\":\"new:1\""));
  EXPECT_TRUE(Has(Tus("HEAD " + path), "Upload-Offset: 10\r\n"));
}

TEST_F(TusTest, ACutConnectionLosesNothing) {
  const std::string part(300'000, 'x');
  const std::string path = Begin(part.size() + 1);
  RawClient client = Connect();
  SendPart(client, path, part, part.size() + 1);
  client.Close();
  EXPECT_TRUE(ComesTo(path, part.size()));
  // The server may hear of the end later than of all bytes.
  int status = 423;
  for (int i = 0; i < 300 && status == 423; ++i) status = StatusOf(Patch(path, part.size(), "y"));
  EXPECT_EQ(status, 204);
  EXPECT_TRUE(OnLoop([this] { return engine_->uploaded; }) == part + "y");
}

// Each part is synced, and its record grows by a line.
TEST(UploadStore, ManySmallPartsKeepTheRecordSmall) {
  const std::string dir = "/tmp/pulga-journal-" + std::to_string(getpid());
  UploadStore store(dir, "boot");
  ASSERT_TRUE(store.Open().ok());
  StoredUpload upload;
  upload.id = std::string(32, 'a');
  upload.length = 100'000;
  ASSERT_TRUE(store.Create(upload).ok());
  const auto data = store.OpenData(upload.id);
  size_t written = 0;
  ASSERT_TRUE(store.Append(data->get(), {0, std::string(5000, 'x'), 0}, &written).ok());
  const std::string info = dir + "/" + upload.id + ".info";
  std::string lines = *ReadFile(info);
  for (int line = 0; line < 4999; ++line) lines += "00000000000000000007\n";
  ASSERT_TRUE(WriteFile(info, lines).ok());
  ASSERT_TRUE(store.Sync(upload.id, data->get(), 5000).ok());
  EXPECT_LT(ReadFile(info)->size(), 1000U);
  const auto found = UploadStore(dir, "another boot").Open();
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(found->front().offset, 5000U);
  EXPECT_EQ(found->front().length, 100'000U);
  (void)RemoveTree(AT_FDCWD, dir);
}

TEST_F(TusTest, OffsetsMustMatch) {
  const std::string path = Begin(10);
  EXPECT_EQ(StatusOf(Patch(path, 0, "0123")), 204);
  for (const size_t wrong : {0, 3, 5, 10, 11}) {
    const std::string reply = Patch(path, wrong, "x");
    EXPECT_EQ(StatusOf(reply), 409) << reply;
    EXPECT_TRUE(Has(reply, "offset_mismatch"));
  }
  EXPECT_TRUE(ComesTo(path, 4));
  EXPECT_EQ(StatusOf(Patch(path, 4, "4567890")), 413);
  EXPECT_TRUE(ComesTo(path, 4));
}

// "Upload-Expires MUST be included in every PATCH response" (expiration).
TEST_F(TusTest, ARefusedPartTellsWhereTheUploadIs) {
  const std::string path = Begin(10);
  EXPECT_EQ(StatusOf(Patch(path, 0, "0123")), 204);
  const std::string reply = Patch(path, 7, "x");
  EXPECT_EQ(StatusOf(reply), 409);
  EXPECT_TRUE(Has(reply, "\r\nUpload-Offset: 4\r\n")) << reply;
  EXPECT_TRUE(Has(reply, "\r\nUpload-Expires: ")) << reply;
  const std::string unknown = Patch("/v1/uploads/" + std::string(32, 'a'), 0, "x");
  EXPECT_EQ(StatusOf(unknown), 404);
  EXPECT_FALSE(Has(unknown, "Upload-Offset")) << unknown;
}

TEST_F(TusTest, EveryReplyNamesTheVersion) {
  const std::string path = Begin(5);
  const std::string type = "Content-Type: application/offset+octet-stream\r\n";
  const std::pair<std::string, int> replies[] = {
      {Tus("POST /v1/uploads", "Upload-Length: 5\r\n", "12345"), 413},
      {Tus("POST /v1/uploads?x=1", "Upload-Length: 5\r\n"), 400},
      {Tus("BREW " + path), 405},
      {Tus("HEAD " + path + "/more"), 404},
      {Tus("PATCH " + path, type + "Upload-Offset: 0\r\nHost: y\r\n"), 400},
      {Ask("HEAD " + path + " HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\n"), 401},
      {Ask(Head("OPTIONS /v1/uploads", "Tus-Resumable: 0.0.1\r\n", 0)), 204},
  };
  for (const auto& [reply, status] : replies) {
    EXPECT_EQ(StatusOf(reply), status) << reply;
    const size_t at = reply.find("\r\nTus-Resumable: 1.0.0\r\n");
    EXPECT_NE(at, std::string::npos) << reply;
    EXPECT_EQ(reply.find("Tus-Resumable", at + 4), std::string::npos) << reply;
  }
}

TEST_F(TusTest, AFlagIsNoughtOrOne) {
  // zzz; nothing
  for (const char* value : {" enp6", ""}) {
    const std::string reply =
        Tus("POST /v1/uploads",
            std::string("Upload-Length: 5\r\nUpload-Metadata: any_platform") + value + "\r\n");
    EXPECT_EQ(StatusOf(reply), 400) << reply;
    EXPECT_TRUE(Has(reply, "any_platform must be 0 or 1")) << reply;
  }
}

TEST_F(TusTest, OnePartAtATime) {
  const std::string path = Begin(10);
  RawClient client = Connect();
  SendPart(client, path, "0123", 10);
  EXPECT_TRUE(ComesTo(path, 4));
  const std::string other = Patch(path, 4, "x");
  EXPECT_EQ(StatusOf(other), 423) << other;
  EXPECT_TRUE(Has(other, "upload_locked"));
  client.Send("456789");
  EXPECT_TRUE(Has(client.ReadUntil("\r\n\r\n"), " 204 "));
  EXPECT_EQ(OnLoop([this] { return engine_->uploaded; }), "0123456789");
}

TEST_F(TusTest, HostileHeadsAreRefused) {
  const auto create = [this](const std::string& headers) {
    return StatusOf(Tus("POST /v1/uploads", headers));
  };
  EXPECT_EQ(create(""), 400);
  EXPECT_EQ(create("Upload-Length: 0\r\n"), 400);
  EXPECT_EQ(create("Upload-Length: -5\r\n"), 400);
  EXPECT_EQ(create("Upload-Length: 5\r\nUpload-Length: 6\r\n"), 400);
  EXPECT_EQ(create("Upload-Length: 5\r\nUpload-Defer-Length: 1\r\n"), 400);
  EXPECT_EQ(create("Upload-Length: 5\r\nUpload-Metadata: ref !!!\r\n"), 400);
  EXPECT_EQ(create("Upload-Length: 5\r\nUpload-Metadata: ref QkFE\r\n"), 400);
  EXPECT_EQ(create("Upload-Length: 9999999999999\r\n"), 413);
  EXPECT_EQ(StatusOf(Tus("POST /v1/uploads", "Upload-Length: 5\r\n", "12345")), 413);
  const std::string path = Begin(5);
  EXPECT_EQ(StatusOf(Tus("PATCH " + path, "Upload-Offset: 0\r\n", "x")), 415);
  EXPECT_EQ(
      StatusOf(Tus("PATCH " + path, "Content-Type: application/offset+octet-stream\r\n", "x")),
      400);
  EXPECT_EQ(StatusOf(Patch("/v1/uploads/" + std::string(32, 'a'), 0, "x")), 404);
  EXPECT_EQ(StatusOf(Patch("/v1/uploads/..%2f..%2fadmin.key", 0, "x")), 404);
  EXPECT_EQ(StatusOf(Tus("HEAD /v1/uploads/x")), 404);
  EXPECT_TRUE(ComesTo(path, 0));
}

TEST_F(TusTest, TheVersionIsAskedFor) {
  const std::string path = Begin(5);
  for (const char* version : {"", "Tus-Resumable: 0.2.2\r\n"}) {
    for (const char* method : {"PATCH ", "DELETE ", "HEAD "}) {
      const std::string reply = Ask(Head(method + path, version, 0));
      EXPECT_EQ(StatusOf(reply), 412) << reply;
      EXPECT_TRUE(Has(reply, "Tus-Version: 1.0.0\r\n")) << reply;
    }
    EXPECT_EQ(StatusOf(Ask(Head("POST /v1/uploads", version, 0))), 412);
  }
}

TEST_F(TusTest, TheMethodMayBeOverridden) {
  const std::string path = Begin(5);
  const std::string patched =
      Tus("POST " + path, "X-HTTP-Method-Override: PATCH\r\n" + PatchHeaders(0), "01");
  EXPECT_EQ(StatusOf(patched), 204) << patched;
  EXPECT_TRUE(ComesTo(path, 2));
  EXPECT_EQ(StatusOf(Tus("POST " + path, "X-HTTP-Method-Override: DELETE\r\n")), 204);
  EXPECT_EQ(StatusOf(Tus("HEAD " + path)), 410);
  EXPECT_EQ(StatusOf(Tus("POST " + path, "X-HTTP-Method-Override: BREW\r\n")), 405);
}

TEST_F(TusTest, RemovedUploadsAreGone) {
  const std::string path = Begin(5);
  EXPECT_EQ(StatusOf(Patch(path, 0, "01")), 204);
  EXPECT_EQ(StatusOf(Tus("DELETE " + path)), 204);
  EXPECT_EQ(StatusOf(Tus("DELETE " + path)), 410);
  EXPECT_EQ(StatusOf(Patch(path, 2, "x")), 410);
  EXPECT_EQ(StatusOf(Admin("GET " + path)), 410);
  EXPECT_EQ(BodyOf(Admin("GET /v1/uploads")), "{\"uploads\":[]}\n");
}

TEST_F(TusTest, AFailedImportIsTheLastPartsAnswer) {
  OnLoop([this] {
    engine_->import_report = {};
    engine_->import_report.status = Error{Code::kInvalidArgument, 0, "this is text"};
    engine_->import_report.reason = ImportReason::kNotAnArchive;
    return 0;
  });
  const std::string path = Begin(4);
  const std::string reply = Patch(path, 0, "text");
  EXPECT_EQ(StatusOf(reply), 415) << reply;
  EXPECT_TRUE(Has(reply, "not_an_archive"));
  EXPECT_TRUE(Has(Admin("GET " + path), "\"state\":\"failed\""));
}

// The archive is not to blame when there was no launcher: its bytes stay.
TEST_F(TusTest, AnImportThatCouldNotRunIsTriedAgain) {
  OnLoop([this] {
    engine_->import_report.status = Error{Code::kUnavailable, 0, "no launcher"};
    engine_->import_report.reason = ImportReason::kHelper;
    return 0;
  });
  const std::string path = Begin(4);
  EXPECT_EQ(StatusOf(Patch(path, 0, "good")), 503);
  OnLoop([this] {
    engine_->import_report = {};
    engine_->import_report.images = {SampleImage("new:1")};
    engine_->uploaded.clear();
    return 0;
  });
  EXPECT_EQ(StatusOf(Patch(path, 4, "")), 204);
  EXPECT_EQ(OnLoop([this] { return engine_->uploaded; }), "good");
}

TEST_F(TusTest, OnlySoManyAreKept) {
  OnLoop([this] {
    ResumableLimits limits;
    limits.at_most = 2;
    engine_->uploads().SetLimits(limits);
    return 0;
  });
  const std::string first = Begin(5);
  Begin(5);
  EXPECT_EQ(StatusOf(Tus("POST /v1/uploads", "Upload-Length: 5\r\n")), 503);
  EXPECT_EQ(StatusOf(Tus("DELETE " + first)), 204);
  Begin(5);
}

TEST_F(TusTest, TheReserveOfTheDiskIsLeftFree) {
  OnLoop([this] {
    ResumableLimits limits;
    limits.reserve_bytes = uint64_t{1} << 60;
    engine_->uploads().SetLimits(limits);
    return 0;
  });
  EXPECT_EQ(StatusOf(Tus("POST /v1/uploads", "Upload-Length: 5\r\n")), 507);
}

TEST_F(TusTest, UnfinishedOnesExpire) {
  OnLoop([this] {
    ResumableLimits limits;
    limits.expiry = std::chrono::milliseconds(50);
    engine_->uploads().SetLimits(limits);
    return 0;
  });
  const std::string path = Begin(5);
  EXPECT_TRUE(Eventually([this] { return engine_->uploads().List().empty(); }));
  EXPECT_EQ(StatusOf(Tus("HEAD " + path)), 410);
}

}  // namespace
}  // namespace pulga::testing
