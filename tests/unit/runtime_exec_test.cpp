// exec invocations over scripted programs behind real pipes: the hold, the stream, every outcome.
#include <signal.h>

#include <atomic>
#include <thread>

#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using testing::Client;
using testing::Exited;
using testing::FakeProgram;
using testing::Killed;

class ExecTest : public testing::CallTest {
 protected:
  ExecTest() { version = MakeVersion(SandboxMode::kExec); }
  std::unique_ptr<Client> Run(testing::FakeScript script) {
    sandbox->program = std::move(script);
    EXPECT_TRUE(Activate(version).ok());
    return Call(Request());
  }
  std::string Step() { return dispatcher->Activity(key).instances[0].step; }
  std::shared_ptr<Version> version;
};

TEST_F(ExecTest, AnswersWithStdoutWhenTheProgramExitsWithZero) {
  auto client = Run([](FakeProgram& p) {
    p.Print("hello");
    return Exited(0);
  });
  EXPECT_EQ(client->status(), 200);
  EXPECT_EQ(client->body, "hello");
  EXPECT_EQ(client->outcome(), "ok");
  EXPECT_TRUE(client->whole);
  EXPECT_TRUE(client->call->head().final_outcome_known);
  EXPECT_EQ(client->call->head().content_length, 5U);
  EXPECT_EQ(client->header("Content-Type"), "application/octet-stream");
}

TEST_F(ExecTest, TellsTheExitCodeAndTheLastOfStderr) {
  auto client = Run([](FakeProgram& p) {
    p.Print("half an answer");
    p.Complain(std::string(8000, 'x') + "the reason");
    return Exited(3);
  });
  EXPECT_EQ(client->status(), 0);
  EXPECT_EQ(client->body, "");
  EXPECT_EQ(client->outcome(), "exited:3");
  const std::string text = client->call->FailureText();
  EXPECT_NE(text.find("exited with code 3"), std::string::npos);
  EXPECT_NE(text.find("the reason"), std::string::npos);
  EXPECT_LT(text.size(), 4400U);
}

TEST_F(ExecTest, TellsTheSignal) {
  EXPECT_EQ(Run([](FakeProgram&) { return Killed(SIGSEGV); })->outcome(), "signaled:SIGSEGV");
}

TEST_F(ExecTest, TellsADeathBySeccomp) {
  EXPECT_EQ(Run([](FakeProgram&) { return Killed(SIGSYS); })->outcome(), "syscall-denied");
}

TEST_F(ExecTest, SaysOutOfMemoryBeforeTheSignalItCameBy) {
  sandbox->oom = true;
  auto client = Run([](FakeProgram&) { return Killed(SIGKILL); });
  EXPECT_EQ(client->outcome(), "oom-killed");
  EXPECT_NE(client->call->FailureText().find("peak 1.0 MiB, limit 64.0 MiB"), std::string::npos)
      << client->call->FailureText();
}

TEST_F(ExecTest, SaysOutOfMemoryBeforeAnExitCodeButNotOfACleanExit) {
  sandbox->oom = true;
  EXPECT_EQ(Run([](FakeProgram&) { return Exited(137); })->outcome(), "oom-killed");
  sandbox->program = [](FakeProgram&) { return Exited(0); };
  EXPECT_EQ(Call(Request())->outcome(), "ok");
}

TEST_F(ExecTest, NamesTheStepWhenTheSandboxCouldNotBeSetUp) {
  sandbox->setup_step = "mount-proc";
  auto client = Run([](FakeProgram&) { return Exited(0); });
  EXPECT_EQ(client->outcome(), "setup-failed:mount-proc");
  EXPECT_EQ(client->call->outcome().code, EPERM);
}

TEST_F(ExecTest, AnswersAtTheTimeoutAndNotAfterTheGrace) {
  version->spec.limits.timeout = std::chrono::milliseconds(50);
  version->spec.limits.grace = std::chrono::seconds(60);
  auto client = Run([](FakeProgram& p) {
    while (p.WaitForSignal() != SIGKILL) {
    }
    return Killed(SIGKILL);
  });
  EXPECT_EQ(client->outcome(), "timed-out");
  EXPECT_EQ(sandbox->signals, std::vector<int>{SIGTERM});
}

TEST_F(ExecTest, KillsWhatIgnoresSigtermAfterTheGrace) {
  version->spec.limits.timeout = std::chrono::milliseconds(20);
  version->spec.limits.grace = std::chrono::milliseconds(30);
  version->spec.scale.parked = 0;
  auto client = Run([](FakeProgram& p) {
    while (p.WaitForSignal() != SIGKILL) {
    }
    return Killed(SIGKILL);
  });
  EXPECT_TRUE(RunUntil([&] { return sandbox->live == 0; }));
  EXPECT_EQ(sandbox->signals, (std::vector<int>{SIGTERM, SIGKILL}));
}

TEST_F(ExecTest, KillsTheProgramWhenTheClientLeaves) {
  version->spec.scale.parked = 0;
  sandbox->program = [](FakeProgram& p) { return Killed(p.WaitForSignal()); };
  ASSERT_TRUE(Activate(version).ok());
  auto client = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  client->Leave();
  EXPECT_TRUE(RunUntil([&] { return sandbox->live == 0; }));
  EXPECT_EQ(Count("cancelled"), 1U);
  EXPECT_EQ(sandbox->signals, std::vector<int>{SIGKILL});
}

TEST_F(ExecTest, HoldsOneByteLessThanTheLimitAndStreamsFromThere) {
  for (const size_t size : {65535U, 65536U, 65537U}) {
    sandbox->program = [size](FakeProgram& p) {
      p.Print(std::string(size, 'x'));
      return Exited(4);
    };
    ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
    auto client = Call(Request());
    EXPECT_EQ(client->status(), size < 65536 ? 0 : 200) << size;
    EXPECT_EQ(client->aborted(), size >= 65536) << size;
    EXPECT_EQ(client->body.size(), size < 65536 ? 0 : size) << size;
    EXPECT_EQ(client->outcome(), "exited:4") << size;
  }
}

TEST_F(ExecTest, EndsAStreamNormallyAfterExitZero) {
  auto client = Run([](FakeProgram& p) {
    for (int i = 0; i < 40; ++i) p.Print(std::string(10000, 'x'));
    return Exited(0);
  });
  EXPECT_EQ(client->status(), 200);
  EXPECT_FALSE(client->call->head().content_length);
  EXPECT_FALSE(client->aborted());
  EXPECT_EQ(client->body.size(), 400000U);
  EXPECT_EQ(client->outcome(), "ok");
}

TEST_F(ExecTest, SkipsTheHoldWhenAStreamIsWanted) {
  sandbox->program = [](FakeProgram& p) {
    p.Print("event\n");
    return Exited(p.WaitForSignal() == SIGKILL ? 0 : 1);
  };
  ASSERT_TRUE(Activate(version).ok());
  InvocationRequest request = Request();
  request.wants_stream = true;
  auto client = Begin(std::move(request));
  EXPECT_TRUE(RunUntil([&] { return client->body == "event\n"; }));
  EXPECT_FALSE(client->done());
}

TEST_F(ExecTest, StopsAProgramThatWritesForEver) {
  version->spec.limits.output_bytes = 1 << 20;
  auto client = Run([](FakeProgram& p) {
    while (p.Print(std::string(65536, 'y'))) {
    }
    return Killed(SIGPIPE);
  });
  EXPECT_TRUE(client->aborted());
  EXPECT_EQ(client->outcome(), "output-limit");
  EXPECT_LE(client->body.size(), size_t{1} << 20);
}

TEST_F(ExecTest, SaysOutputLimitWithAStatusWhileItIsStillHeld) {
  version->spec.limits.output_bytes = 100;
  auto client = Run([](FakeProgram& p) {
    p.Print(std::string(101, 'y'));
    return Exited(0);
  });
  EXPECT_EQ(client->status(), 0);
  EXPECT_EQ(client->outcome(), "output-limit");
}

TEST_F(ExecTest, LetsAFullOutputPipeWaitForASlowReader) {
  sandbox->program = [](FakeProgram& p) {
    for (int i = 0; i < 50; ++i) p.Print(std::string(10000, 'x'));
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  auto client = std::make_unique<Client>();
  client->reading = Client::Reading::kPaused;
  client->Start(*dispatcher, Request());
  ASSERT_TRUE(RunUntil([&] { return client->head_seen; }));
  RunFor(std::chrono::milliseconds(50));
  EXPECT_EQ(Count("ok"), 0U) << "it cannot have ended: its pipe is full";
  client->Resume();
  EXPECT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->body.size(), 500000U);
}

TEST_F(ExecTest, EndsWithTheProgramThoughAChildStillHoldsThePipe) {
  std::atomic<bool> printed = false;
  sandbox->program = [&](FakeProgram& p) {
    printed = p.Print("done");
    p.WaitForSignal();  // stands for the child: its copy of stdout stays open
    return Exited(0);
  };
  version->spec.scale.parked = 0;
  ASSERT_TRUE(Activate(version).ok());
  auto client = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return printed.load(); }));
  sandbox->KillInstance(0, Exited(0));
  EXPECT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->body, "done");
  EXPECT_EQ(client->outcome(), "ok");
}

TEST_F(ExecTest, PassesALargeBodyThroughWithBackpressure) {
  sandbox->program = [](FakeProgram& p) {
    char buffer[5000];
    while (const size_t n = p.ReadSome(buffer, sizeof buffer)) p.Print({buffer, n});
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  std::string body;
  for (int i = 0; i < 300000; ++i) body += static_cast<char>('a' + i % 23);
  EXPECT_EQ(Call(Post(body.size()), body)->body, body);
  EXPECT_EQ(Call(Post(std::nullopt), body)->body, body);
}

TEST_F(ExecTest, BeginsToAnswerAfter64KiBWhileTheBodyStillComesIn) {
  sandbox->program = [](FakeProgram& p) {
    char buffer[5000];
    while (const size_t n = p.ReadSome(buffer, sizeof buffer)) p.Print({buffer, n});
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  Client client;
  client.Start(*dispatcher, Post(std::nullopt));
  client.Send(std::string(1 << 20, 'b'));
  ASSERT_TRUE(RunUntil([&] { return client.sent == 1 << 20; }));
  ASSERT_TRUE(RunUntil([&] { return client.head_seen; }));
  EXPECT_FALSE(client.done());
  client.EndBody();
  ASSERT_TRUE(RunUntil([&] { return client.done(); }));
  EXPECT_EQ(client.body.size(), 1U << 20);
  EXPECT_EQ(client.outcome(), "ok");
}

TEST_F(ExecTest, BuffersABoundedPartOfABodyNobodyReads) {
  sandbox->program = [](FakeProgram& p) { return Killed(p.WaitForSignal()); };
  ASSERT_TRUE(Activate(version).ok());
  auto client = Begin(Post(1 << 20), std::string(1 << 20, 'b'));
  RunFor(std::chrono::milliseconds(50));
  EXPECT_GE(client->sent, 65536U);
  EXPECT_LE(client->sent, 2 * 65536U);
}

TEST_F(ExecTest, DropsTheRestOfABodyTheProgramDoesNotWant) {
  sandbox->program = [](FakeProgram& p) {
    char buffer[10];
    p.ReadSome(buffer, sizeof buffer);
    p.Print("enough");
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  auto client = Call(Post(1 << 20), std::string(1 << 20, 'b'));
  EXPECT_EQ(client->body, "enough");
  EXPECT_EQ(client->outcome(), "ok");
}

TEST_F(ExecTest, RefusesABodyOverTheLimitAnnouncedOrNot) {
  version->spec.limits.body_bytes = 1000;
  ASSERT_TRUE(Activate(version).ok());
  auto announced = Call(Post(1001), std::string(1001, 'b'));
  EXPECT_EQ(announced->outcome(), "rejected:body-limit");
  EXPECT_EQ(sandbox->starts, 0);
  sandbox->program = [](FakeProgram& p) {
    p.ReadAll();
    return Killed(p.WaitForSignal());
  };
  auto chunked = Call(Post(std::nullopt), std::string(1001, 'b'));
  EXPECT_EQ(chunked->outcome(), "rejected:body-limit");
  EXPECT_EQ(chunked->status(), 0);
}

TEST_F(ExecTest, GivesTheBodyAsLastArgument) {
  version->spec.input = InputKind::kArgument;
  sandbox->program = [](FakeProgram& p) {
    p.Print(p.args.empty() ? "none" : "[" + p.args.back() + "]" + p.ReadAll());
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(Call(Post(3), "a b")->body, "[a b]");
  EXPECT_EQ(Call(Request())->body, "[]");
  const std::string largest(128 * 1024 - 1, 'x');
  EXPECT_EQ(Call(Post(std::nullopt), largest)->body.size(), largest.size() + 2);
}

TEST_F(ExecTest, RefusesAnArgumentThatCannotBeOne) {
  version->spec.input = InputKind::kArgument;
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(Call(Post(3), std::string("a\0b", 3))->outcome(), "rejected:bad-argument");
  const std::string too_large(128 * 1024, 'x');
  EXPECT_EQ(Call(Post(std::nullopt), too_large)->outcome(), "rejected:body-limit");
  EXPECT_EQ(Call(Post(too_large.size()), too_large)->outcome(), "rejected:body-limit");
  EXPECT_EQ(sandbox->starts + sandbox->wakes, 0);
}

TEST_F(ExecTest, DescribesTheRequestInTheEnvironment) {
  sandbox->program = [](FakeProgram& p) {
    p.Print(p.Env("Http_Method") + " " + p.Env("Http_Path") + " " + p.Env("Http_Query") + " " +
            p.Env("Http_X_Some_Header") + " " + p.Env("PULGA_CALL_ID") + " " +
            p.Env("Http_Content_Length"));
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  InvocationRequest request = Post(2);
  request.path = "/a%20b";
  request.query = "c=d";
  request.headers = {{"x-SOME-header", "v"}};
  EXPECT_EQ(Call(std::move(request), "zz")->body, "POST /a%20b c=d v call-1 2");
}

TEST_F(ExecTest, LogsStderrByLine) {
  Run([](FakeProgram& p) {
    p.Complain("one\ntwo\nunfinished");
    return Exited(0);
  });
  EXPECT_EQ(LogText(), "stderr: one\nstderr: two\nstderr: unfinished\n");
}

TEST_F(ExecTest, WakesAParkedInstanceTheSecondTimeAndSaysSo) {
  auto first = Run([](FakeProgram&) { return Exited(0); });
  EXPECT_EQ(first->call->receipt().start, StartKind::kCold);
  ASSERT_TRUE(RunUntil([&] { return Instances() == 1; }));
  ASSERT_TRUE(RunUntil([&] { return dispatcher->Activity(key).instances[0].step == "parked"; }));
  auto second = Call(Request());
  EXPECT_EQ(second->call->receipt().start, StartKind::kParked);
  EXPECT_GE(second->call->receipt().sandbox_ms, 0);
  EXPECT_EQ(sandbox->wakes, 1);
}

TEST_F(ExecTest, GivesACallToAnotherInstanceWhenAParkedOneDiedBeforeItRan) {
  Run([](FakeProgram& p) {
    p.Print("ran " + p.ReadAll());
    return Exited(0);
  });
  for (const size_t size : {0U, 5U, 60000U}) {
    const auto parked = [&] { return Instances() == 1 && Step() == "parked"; };
    ASSERT_TRUE(RunUntil(parked));
    sandbox->dies_before_exec = true;
    const std::string body(size, 'b');
    auto client = Call(size == 0 ? Request() : Post(size), body);
    EXPECT_EQ(client->body, "ran " + body);
    EXPECT_EQ(client->outcome(), "ok");
  }
}

TEST_F(ExecTest, TellsApartTheLaunchersDeath) {
  sandbox->program = [](FakeProgram& p) { return Killed(p.WaitForSignal()); };
  ASSERT_TRUE(Activate(version).ok());
  auto client = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  sandbox->set_available(false);
  sandbox->KillSpawners("the launcher died");
  ASSERT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->outcome(), "setup-failed:launcher-lost");
}

TEST_F(ExecTest, MeasuresTheProgramUpToItsFirstOutputOrItsExit) {
  using std::chrono::milliseconds;
  auto silent = Run([](FakeProgram&) {
    std::this_thread::sleep_for(milliseconds(30));
    return Exited(0);
  });
  EXPECT_GE(silent->call->receipt().exec_ms, 30);
  sandbox->program = [](FakeProgram& p) {
    p.Print("early");
    std::this_thread::sleep_for(milliseconds(200));
    return Exited(0);
  };
  auto early = Call(Request());
  EXPECT_GE(early->call->receipt().exec_ms, 0);
  EXPECT_LT(early->call->receipt().exec_ms, 150);
  EXPECT_GE(early->call->receipt().function_ms, 200);
}

TEST_F(ExecTest, SaysWhatTheSandboxTookWhenTheCallTimedOut) {
  version->spec.limits.timeout = std::chrono::milliseconds(30);
  auto client = Run([](FakeProgram& p) { return Killed(p.WaitForSignal()); });
  EXPECT_EQ(client->outcome(), "timed-out");
  EXPECT_GE(client->call->receipt().sandbox_ms, 0);
  EXPECT_LT(client->call->receipt().exec_ms, 0) << "neither output nor an exit was seen";
}

TEST_F(ExecTest, EndsRunningCallsWhenTheSpawnerDiesAndBuildsTheNextOnDemand) {
  sandbox->program = [](FakeProgram& p) { return Killed(p.WaitForSignal()); };
  ASSERT_TRUE(Activate(version).ok());
  auto client = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  sandbox->KillSpawners("killed by a test");
  ASSERT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->outcome(), "setup-failed:spawner-lost");
  EXPECT_NE(client->call->FailureText().find("killed by a test"), std::string::npos);
  EXPECT_NE(client->call->FailureText().find("the call may have run"), std::string::npos);
  sandbox->program = [](FakeProgram&) { return Exited(0); };
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  EXPECT_EQ(sandbox->builds, 2);
}

}  // namespace
}  // namespace pulga
