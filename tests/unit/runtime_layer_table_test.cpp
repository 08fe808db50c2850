// Who may use, make and remove a layer at one moment.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/layer_table.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

LayerId Layer(uint8_t fill) {
  LayerId id;
  id.bytes.fill(fill);
  return id;
}

LayerRecord Record(uint8_t fill) {
  LayerRecord layer;
  layer.chain_id = Layer(fill);
  layer.size_bytes = fill;
  return layer;
}

class Table : public ::testing::Test {
 protected:
  void AddImage(char letter, std::vector<uint8_t> layers) {
    ImageRecord image;
    image.digest = "sha256:" + std::string(64, letter);
    for (const uint8_t layer : layers) image.layers.push_back(Record(layer));
    catalog_.Add(image);
  }
  // "make", "found", or "" while it waits.
  LayerTable::Found Note(std::string* out) {
    return [out](const std::optional<LayerRecord>& layer) { *out = layer ? "found" : "make"; };
  }
  ImageCatalog catalog_;
  LayerTable table_{catalog_};
  LayerTable::Holder a_ = table_.NewHolder();
  LayerTable::Holder b_ = table_.NewHolder();
  std::string a_got_, b_got_;
};

TEST_F(Table, TheSecondWaitsForTheFirstAndFindsWhatItMade) {
  table_.FindOrMake(a_, Layer(1), Note(&a_got_));
  table_.FindOrMake(b_, Layer(1), Note(&b_got_));
  EXPECT_EQ(a_got_, "make");
  EXPECT_EQ(b_got_, "");
  EXPECT_FALSE(table_.Find(b_, Layer(1)).has_value()) << "it is not there yet";
  table_.Made(a_, Layer(1), Record(1));
  EXPECT_EQ(b_got_, "found");
  EXPECT_THAT(table_.Release(a_), IsEmpty()) << "the other one uses it";
  EXPECT_THAT(table_.Release(b_), ElementsAre(Layer(1)));
}

TEST_F(Table, TheSecondMakesWhatTheFirstCouldNot) {
  table_.FindOrMake(a_, Layer(1), Note(&a_got_));
  table_.FindOrMake(b_, Layer(1), Note(&b_got_));
  table_.Made(a_, Layer(1), std::nullopt);
  EXPECT_EQ(b_got_, "make");
  EXPECT_THAT(table_.Release(a_), IsEmpty());
}

TEST_F(Table, AnImportThatEndsWithoutAWordMakesNobodyWait) {
  table_.FindOrMake(a_, Layer(1), Note(&a_got_));
  table_.FindOrMake(b_, Layer(1), Note(&b_got_));
  EXPECT_THAT(table_.Release(a_), IsEmpty());
  EXPECT_EQ(b_got_, "make");
}

TEST_F(Table, AnImportThatIsGivenUpWaitsForNobodyAndMakesNothing) {
  table_.FindOrMake(a_, Layer(1), Note(&a_got_));
  table_.FindOrMake(b_, Layer(1), Note(&b_got_));
  table_.Abandon(b_);
  EXPECT_EQ(b_got_, "make") << "so that its thread goes on, and fails";
  b_got_.clear();
  table_.FindOrMake(b_, Layer(1), Note(&b_got_));
  EXPECT_EQ(b_got_, "make");
  table_.Made(b_, Layer(1), std::nullopt);
  EXPECT_THAT(table_.Release(b_), IsEmpty());
  table_.Made(a_, Layer(1), Record(1));
  EXPECT_THAT(table_.Release(a_), ElementsAre(Layer(1)));
  EXPECT_THAT(table_.Busy(), IsEmpty());
}

TEST_F(Table, WhatHasARowIsFoundAndNotLeftBehind) {
  AddImage('a', {1});
  EXPECT_EQ(table_.Find(a_, Layer(1))->size_bytes, 1U);
  EXPECT_FALSE(table_.Find(a_, Layer(2)).has_value());
  EXPECT_THAT(table_.Release(a_), IsEmpty());
}

TEST_F(Table, NobodyRemovesWhatAnImportUses) {
  AddImage('a', {1});
  ASSERT_TRUE(table_.Find(a_, Layer(1)).has_value());
  EXPECT_FALSE(table_.BeginRemoval(Layer(1)));
  catalog_.RemoveImage("sha256:" + std::string(64, 'a'));
  EXPECT_TRUE(table_.Find(b_, Layer(1)).has_value()) << "it is still on disk";
  EXPECT_THAT(table_.Release(b_), IsEmpty());
  EXPECT_THAT(table_.Release(a_), ElementsAre(Layer(1))) << "its row is gone";
}

TEST_F(Table, WhoNeedsALayerThatIsBeingRemovedMakesItAnew) {
  ASSERT_TRUE(table_.BeginRemoval(Layer(1)));
  table_.FindOrMake(a_, Layer(1), Note(&a_got_));
  EXPECT_EQ(a_got_, "");
  table_.EndRemoval(Layer(1));
  EXPECT_EQ(a_got_, "make");
  EXPECT_FALSE(table_.BeginRemoval(Layer(1)));
  EXPECT_EQ(table_.Busy().size(), 1U);
  table_.Made(a_, Layer(1), std::nullopt);
  EXPECT_THAT(table_.Busy(), IsEmpty());
}

}  // namespace
}  // namespace pulga
