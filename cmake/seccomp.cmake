# pulga_seccomp_program(TARGET FUNCTION LIST [names | widened|counted|rest MORE]): compiles the
# system call list LIST, or one half of it (sandbox/seccomp_list.h), into a ready BPF program for
# the target machine and adds it to TARGET as
#   std::span<const sock_filter> pulga::FUNCTION();
# which the caller declares in a header of its own and loads with LoadSeccomp (base/seccomp.h).
# With "names" it makes the table of the calls that LIST refuses instead.
# LIST has the format of sandbox/syscalls.txt (described there and in sandbox/seccomp_list.h).
# The compiler is sandbox/seccomp_compile.cpp, a build-time tool with libseccomp; in cross builds it
# runs through CMAKE_CROSSCOMPILING_EMULATOR, so that the target's own system call numbers are used.
function(pulga_seccomp_program target function list)
  set(output ${CMAKE_CURRENT_BINARY_DIR}/${function}.seccomp.cpp)
  set(half)
  set(more)
  if(ARGC GREATER 4)
    set(more ${CMAKE_CURRENT_SOURCE_DIR}/${ARGV4})
    set(half ${ARGV3} ${more})
  elseif(ARGC GREATER 3)
    set(half ${ARGV3})
  endif()
  add_custom_command(
    OUTPUT ${output}
    COMMAND pulga_seccomp_compile ${function} ${CMAKE_CURRENT_SOURCE_DIR}/${list} ${output}
            ${half}
    DEPENDS pulga_seccomp_compile ${CMAKE_CURRENT_SOURCE_DIR}/${list} ${more}
    COMMENT "Compiling system call list ${list}" VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()
