# pulga_target(NAME): the flags every target of ours is built with.
set(PULGA_WARNINGS -Wall -Wextra -Wpedantic -Werror -Wshadow -Wnon-virtual-dtor -Wold-style-cast
    -Wcast-align -Woverloaded-virtual -Wimplicit-fallthrough -Wno-restrict -Wno-maybe-uninitialized)

function(pulga_target name)
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${PULGA_WARNINGS}>)
  target_compile_options(${name} PRIVATE -fno-omit-frame-pointer -fstack-protector-strong)
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE PULGA_VERSION="${PROJECT_VERSION}" _GNU_SOURCE)
  if(PULGA_SANITIZE)
    string(REPLACE ";" "," list "${PULGA_SANITIZE}")
    target_compile_options(${name} PRIVATE -fsanitize=${list} -fno-sanitize-recover=all)
    target_link_options(${name} PUBLIC -fsanitize=${list})
  endif()
endfunction()
