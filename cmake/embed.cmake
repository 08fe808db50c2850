# cmake -DIN=FILE -DOUT=FILE.cpp -DNAME=kConstant -P embed.cmake: the bytes of IN as a constant.
file(READ ${IN} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "\\\\x\\1" bytes "${hex}")
string(LENGTH "${hex}" digits)
math(EXPR size "${digits} / 2")
file(WRITE ${OUT} "#include <string_view>\n\nnamespace pulga::cli {\n"
     "extern const std::string_view ${NAME};\n"
     "const std::string_view ${NAME}(\"${bytes}\", ${size});\n}  // namespace pulga::cli\n")
