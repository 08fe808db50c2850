# pulga_target(NAME): the flags every target of ours is built with.
set(PULGA_WARNINGS -Wall -Wextra -Wpedantic -Werror -Wshadow -Wnon-virtual-dtor -Wold-style-cast
    -Wcast-align -Woverloaded-virtual -Wimplicit-fallthrough -Wno-restrict -Wno-maybe-uninitialized)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")  # for libFuzzer and clang-tidy; g++ is the judge
  list(REMOVE_ITEM PULGA_WARNINGS -Werror -Wno-restrict -Wno-maybe-uninitialized)
endif()

# Our programs are optimised as a whole; tests and tools link the same libraries' plain code, since
# each of them would cost what `pulga` costs (25 s of processor time).
function(pulga_lto name)
  get_target_property(type ${name} TYPE)
  if(NOT PULGA_LTO OR PULGA_SANITIZE)
    return()
  elseif(type STREQUAL EXECUTABLE)
    set(program $<BOOL:$<TARGET_PROPERTY:PULGA_PROGRAM>>)
    target_link_options(${name} PRIVATE $<IF:${program},-flto=auto,-fno-lto>)
  else()
    target_compile_options(${name} PRIVATE -flto=auto -ffat-lto-objects)
  endif()
endfunction()

function(pulga_target name)
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${PULGA_WARNINGS}>)
  target_compile_options(${name} PRIVATE -fno-omit-frame-pointer -fstack-protector-strong)
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE PULGA_VERSION="${PROJECT_VERSION}" _GNU_SOURCE)
  pulga_lto(${name})
  if(PULGA_LIBFUZZER)  # tests/fuzz: what the targets link reports its coverage
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer-no-link)
    target_link_options(${name} PUBLIC -fsanitize=fuzzer-no-link)
  endif()
  if(PULGA_SANITIZE)
    string(REPLACE ";" "," list "${PULGA_SANITIZE}")
    target_compile_options(${name} PRIVATE -fsanitize=${list} -fno-sanitize-recover=all)
    target_link_options(${name} PUBLIC -fsanitize=${list})
  endif()
endfunction()
