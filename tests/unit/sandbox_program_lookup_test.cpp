#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "sandbox/program_lookup.h"
#include "tests/support/test_gate.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;

// The first bytes of an ELF file for `machine`.
std::string ElfHead(unsigned machine, unsigned char elf_class = 2) {
  std::string head(64, '\0');
  head.replace(0, 4,
               "\x7f"
               "ELF");
  head[4] = static_cast<char>(elf_class);
  head[5] = 1;
  head[18] = static_cast<char>(machine & 0xff);
  head[19] = static_cast<char>(machine >> 8);
  return head;
}

unsigned OwnMachine() {
  const std::string self = ReadAt(OpenFile("/proc/self/exe", O_RDONLY)->get(), 0, 20).value();
  return static_cast<unsigned char>(self[18]) | static_cast<unsigned char>(self[19]) << 8;
}

class ProgramLookup : public ::testing::Test {
 protected:
  ProgramLookup() : dir_(TempDir::Create("/tmp/pulga-program-test-").value()) {
    root_ = OpenFile(dir_.path(), O_RDONLY | O_DIRECTORY).value();
  }
  void SetUp() override { PULGA_NEEDS_OPENAT2(); }
  void Put(const std::string& path, const std::string& content, mode_t mode = 0755) {
    const std::string full = dir_.path() + path;
    ASSERT_TRUE(MakeDirs(full.substr(0, full.rfind('/'))).ok());
    ASSERT_TRUE(WriteFile(full, content).ok());
    ASSERT_EQ(chmod(full.c_str(), mode), 0);
  }
  std::string Find(const std::string& name, std::vector<std::string> env = {},
                   const std::string& working_dir = "/") {
    const auto found = FindProgram({name, std::move(env), working_dir, root_.get()});
    return found.ok() ? found->path : found.error().message;
  }
  // On a board that is not this one: whose calls the program makes, or why it cannot run.
  std::string FindOn(const ProgramBoard& board, const std::string& name) {
    const auto found = FindProgram({name, {}, "/", root_.get(), board});
    if (!found.ok()) return found.error().message;
    return found->abi == ProgramAbi::kArm32 ? "arm32" : "board";
  }

  TempDir dir_;
  UniqueFd root_;
  const std::string here_ = ElfHead(OwnMachine());
};

TEST_F(ProgramLookup, SearchesTheImagesPath) {
  Put("/opt/tool", here_);
  Put("/usr/bin/tool", here_);
  EXPECT_EQ(Find("tool"), "/usr/bin/tool");
  EXPECT_EQ(Find("tool", {"PATH=/nowhere:/opt"}), "/opt/tool");
  EXPECT_EQ(Find("tool", {"PATH=/opt", "PATH=/usr/bin"}), "/usr/bin/tool");
}

TEST_F(ProgramLookup, NamesWithSlashAreTakenAsTheyAre) {
  Put("/app/run", here_);
  EXPECT_EQ(Find("/app/run"), "/app/run");
  EXPECT_EQ(Find("./run", {}, "/app"), "/app/./run");
  EXPECT_EQ(Find("app/run"), "/app/run");
}

TEST_F(ProgramLookup, SkipsWhatCannotRunInPath) {
  Put("/bin/tool", here_, 0644);
  Put("/sbin/tool", here_);
  EXPECT_EQ(Find("tool", {"PATH=/bin:/sbin"}), "/sbin/tool");
  EXPECT_THAT(Find("tool", {"PATH=/bin"}), HasSubstr("/bin/tool: it is not executable"));
}

TEST_F(ProgramLookup, SaysWhichMachineAnImageIsFor) {
  Put("/bin/far", ElfHead(OwnMachine() == 183 ? 62 : 183));
  const std::string other = OwnMachine() == 183 ? "linux/amd64" : "linux/arm64";
  EXPECT_EQ(Find("far"),
            "cannot run \"far\": this image is " + other + ", this board is " + BoardPlatform());
}

const ProgramBoard kArm64 = {"linux/arm64", [] { return OkStatus(); }};

TEST_F(ProgramLookup, SaysWhoseCallsAProgramMakes) {
  Put("/bin/arm64", ElfHead(183));
  Put("/bin/arm", ElfHead(40, 1));
  EXPECT_EQ(FindOn(kArm64, "arm64"), "board");
  EXPECT_EQ(FindOn(kArm64, "arm"), "arm32");
  const ProgramBoard arm = {"linux/arm", [] {
                              return Status(Error{Code::kInternal, 0, "not asked"});
                            }};
  EXPECT_EQ(FindOn(arm, "arm"), "board");
  EXPECT_THAT(FindOn(arm, "arm64"), HasSubstr("this image is linux/arm64"));
}

TEST_F(ProgramLookup, AScriptMakesTheCallsOfItsInterpreter) {
  Put("/bin/sh", ElfHead(40, 1));
  Put("/bin/tool", "#!/bin/sh\n");
  Put("/bin/script", "#!/bin/tool\n");
  EXPECT_EQ(FindOn(kArm64, "script"), "arm32");
  Put("/bin/sh", ElfHead(183));
  EXPECT_EQ(FindOn(kArm64, "script"), "board");
  Put("/bin/sh", ElfHead(243));
  EXPECT_THAT(FindOn(kArm64, "script"), HasSubstr("this image is linux/riscv64"));
  Put("/bin/sh", "#!/bin/script\n");
  EXPECT_THAT(FindOn(kArm64, "script"), HasSubstr("its interpreters are scripts, each"));
}

TEST_F(ProgramLookup, RefusesThirtyTwoBitProgramsWhereNoneRun) {
  Put("/bin/arm", ElfHead(40, 1));
  const ProgramBoard refuses = {"linux/arm64", [] {
                                  return Status(Error{Code::kUnsupported, ENOEXEC, "no COMPAT"});
                                }};
  EXPECT_THAT(FindOn(refuses, "arm"), HasSubstr("this board is linux/arm64: no COMPAT"));
  EXPECT_THAT(FindOn({"linux/amd64"}, "arm"), HasSubstr("this image is linux/arm, this board is"));
  Put("/bin/i386", ElfHead(3, 1));
  EXPECT_THAT(FindOn({"linux/amd64"}, "i386"), HasSubstr("32-bit x86 programs are not run"));
}

TEST(Arm32, IsNotToBeHadOnOtherProcessors) {
  const std::string here = BoardPlatform();
  if (here == "linux/arm64" || here == "linux/arm") return;  // tests/vm/test_arm32.py
  const Status runs = RunArm32Program();
  ASSERT_FALSE(runs.ok());
  EXPECT_EQ(runs.error().code, Code::kUnsupported);
}

TEST_F(ProgramLookup, SaysWhatIsMissing) {
  EXPECT_THAT(Find("absent", {"PATH=/bin"}), HasSubstr("nowhere in the image's PATH (/bin)"));
  EXPECT_THAT(Find("/absent"), HasSubstr("there is no such file in the image"));
  EXPECT_THAT(Find(""), HasSubstr("the image names no command"));
  Put("/bin/dir/x", here_);
  EXPECT_THAT(Find("/bin/dir"), HasSubstr("not a regular file"));
}

TEST_F(ProgramLookup, ScriptsNeedTheirInterpreter) {
  Put("/bin/script", "#!/usr/bin/python3 -u\nprint(1)\n");
  EXPECT_THAT(Find("script"), HasSubstr("a script for /usr/bin/python3, which the image does not"));
  Put("/usr/bin/python3", here_);
  EXPECT_EQ(Find("script"), "/bin/script");
  Put("/bin/bare", "#!\n");
  EXPECT_THAT(Find("bare"), HasSubstr("names no interpreter"));
}

TEST_F(ProgramLookup, TextAndEmptyFilesAreNoPrograms) {
  Put("/bin/text", "echo hello\n");
  Put("/bin/empty", "");
  EXPECT_THAT(Find("text"), HasSubstr("neither a Linux program"));
  EXPECT_THAT(Find("empty"), HasSubstr("an empty file"));
}

TEST_F(ProgramLookup, SymlinksStayInsideTheRoot) {
  Put("/usr/bin/busybox", here_);
  ASSERT_EQ(symlink("/usr/bin/busybox", (dir_.path() + "/usr/bin/cat").c_str()), 0);
  ASSERT_EQ(symlink("usr/bin", (dir_.path() + "/bin").c_str()), 0);
  ASSERT_EQ(symlink("/../../../../proc/self/exe", (dir_.path() + "/usr/bin/out").c_str()), 0);
  EXPECT_EQ(Find("/bin/cat"), "/bin/cat");
  EXPECT_THAT(Find("/bin/out"), HasSubstr("no such file"));
}

TEST_F(ProgramLookup, FifosDoNotBlock) {
  ASSERT_EQ(mkfifo((dir_.path() + "/pipe").c_str(), 0755), 0);
  EXPECT_THAT(Find("/pipe"), HasSubstr("not a regular file"));
}

TEST(ElfPlatform, NamesMachinesAsImagesDo) {
  EXPECT_EQ(ElfPlatform(ElfHead(62)), "linux/amd64");
  EXPECT_EQ(ElfPlatform(ElfHead(62, 1)), "linux/x32");
  EXPECT_EQ(ElfPlatform(ElfHead(183)), "linux/arm64");
  EXPECT_EQ(ElfPlatform(ElfHead(40, 1)), "linux/arm");
  EXPECT_EQ(ElfPlatform("#!/bin/sh"), "");
  EXPECT_EQ(ElfPlatform("\x7f"
                        "ELF"),
            "");
}

TEST(ScriptInterpreter, TakesTheFirstWord) {
  EXPECT_EQ(ScriptInterpreter("#!/bin/sh\n"), "/bin/sh");
  EXPECT_EQ(ScriptInterpreter("#! /usr/bin/env python3\n"), "/usr/bin/env");
  EXPECT_EQ(ScriptInterpreter("#!/bin/sh\r\n"), "/bin/sh");
  EXPECT_EQ(ScriptInterpreter("plain"), "");
}

}  // namespace
}  // namespace pulga
