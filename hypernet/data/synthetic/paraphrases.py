"""Patterns of descriptions for given tasks that come with two or three.

Function-vector and instruction-induction tasks have two or three short instructions each. With so
few, a hypernetwork learns the strings. With dozens, it has to learn what they have in common.
`task_template.py` fills the slots (`{write}`, `{end}`).
"""

from __future__ import annotations

_ANTONYM = (
    "{write} the opposite of the word.{end}",
    "Name an antonym.{end}",
    "Given a word, {write} one that means the reverse.{end}",
    "What word has the contrary meaning?",
    "Reverse the meaning: answer with an antonym of the {given} word.{end}",
    "The answer means the opposite of the input.{end}",
)
_SYNONYM = (
    "{write} a word that means nearly the same.{end}",
    "Name a synonym.{end}",
    "Replace the word by one of similar meaning.{end}",
    "What is another word for it?",
    "Keep the meaning, change the word: {write} a synonym.{end}",
    "The answer means the same as the input.{end}",
)
_PLURAL = (
    "{write} the plural of the word.{end}",
    "Turn the singular noun into its plural.{end}",
    "From one to many: {write} the plural form.{end}",
    "What are several of these called?",
    "The input is one thing. {write} the word for more than one.{end}",
)
_FRENCH = (
    "{write} the French word for it.{end}",
    "Translate from English to French.{end}",
    "How do you say this in French?",
    "The input is English. {write} it in French.{end}",
    "French translation of the {given} word.{end}",
)
_SPANISH = (
    "{write} the Spanish word for it.{end}",
    "Translate from English to Spanish.{end}",
    "How do you say this in Spanish?",
    "The input is English. {write} it in Spanish.{end}",
    "Spanish translation of the {given} word.{end}",
)
_SENTIMENT = (
    "Decide whether the review is positive or negative.{end}",
    "{write} the sentiment of the sentence: positive or negative.{end}",
    "Does the author like it? Answer positive or negative.",
    "Label the text by its sentiment, positive or negative.{end}",
)

REWORDED: dict[str, tuple[str, ...]] = {
    "antonym": _ANTONYM,
    "antonyms": _ANTONYM,
    "synonym": _SYNONYM,
    "synonyms": _SYNONYM,
    "singular-plural": _PLURAL,
    "singular_to_plural": _PLURAL,
    "english-french": _FRENCH,
    "translation_en-fr": _FRENCH,
    "english-spanish": _SPANISH,
    "translation_en-es": _SPANISH,
    "sentiment": _SENTIMENT,
    "ag_news": (
        "{write} the topic of the article: World, Sports, Business or Science.{end}",
        "Sort the news into World, Sports, Business or Science.{end}",
        "Is this news about the world, sports, business or science?",
        "{write} the section of the newspaper that this belongs to: World, Sports, Business or Science.{end}",
    ),
    "capitalize": (
        "{write} the word with a capital initial.{end}",
        "Make the first letter a capital and leave the rest.{end}",
        "{write} the word as a name would be written.{end}",
        "Capitalise the word.{end}",
        "The answer is the same word, beginning with a capital.{end}",
    ),
    "capitalize_first_letter": (
        "{write} only the first letter of the word, as a capital.{end}",
        "What is the initial, in upper case?",
        "Cut the word to its first letter and make it a capital.{end}",
        "First letter, upper case.{end}",
        "The answer is one capital: the letter that the word begins with.{end}",
    ),
    "capitalize_last_letter": (
        "{write} only the last letter of the word, as a capital.{end}",
        "What is the final letter, in upper case?",
        "Cut the word to its last letter and make it a capital.{end}",
        "Last letter, upper case.{end}",
        "The answer is one capital: the letter that the word ends with.{end}",
    ),
    "lowercase_first_letter": (
        "{write} only the first letter of the word, as a small letter.{end}",
        "What is the initial, in lower case?",
        "Cut the word to its first letter and make it small.{end}",
        "First letter, lower case.{end}",
    ),
    "lowercase_last_letter": (
        "{write} only the last letter of the word, as a small letter.{end}",
        "What is the final letter, in lower case?",
        "Cut the word to its last letter and make it small.{end}",
        "Last letter, lower case.{end}",
    ),
    "first_word_letter": (
        "{write} the letter that the word begins with.{end}",
        "What is the first letter?",
        "Initial letter of the word.{end}",
        "Answer with the word's opening letter.{end}",
    ),
    "letters_list": (
        "Spell the word with a space after each letter.{end}",
        "{write} the letters of the word one by one, parted by spaces.{end}",
        "Put spaces between the letters.{end}",
        "Take the word apart into its letters.{end}",
    ),
    "word_length": (
        "How many letters has the word?",
        "{write} the length of the word as a number.{end}",
        "Count how many characters the word has.{end}",
        "The answer is the number of letters.{end}",
    ),
    "rhymes": (
        "{write} a word that rhymes with it.{end}",
        "Find a rhyme.{end}",
        "Which word ends in the same sound?",
        "Answer with a rhyming word.{end}",
    ),
    "next_item": (
        "{write} what follows the item in its series.{end}",
        "What comes next?",
        "Name the successor of the {given} day, month, number or letter.{end}",
        "Go one step on in the sequence.{end}",
    ),
    "country-capital": (
        "{write} the capital of this country.{end}",
        "Which city is the seat of its government?",
        "From a country to its capital.{end}",
        "The input is a country. {write} its capital city.{end}",
    ),
    "country-currency": (
        "{write} the money of this country.{end}",
        "What do people pay with there?",
        "From a country to its currency.{end}",
        "The input is a country. {write} its currency.{end}",
    ),
    "national_parks": (
        "{write} the US state of this park or monument.{end}",
        "In which American state does it lie?",
        "Name the state where visitors find it.{end}",
    ),
    "person-instrument": (
        "{write} the instrument of this musician.{end}",
        "What does this person play?",
        "From a musician to an instrument.{end}",
        "Name what the musician is known for playing.{end}",
    ),
    "person-occupation": (
        "{write} the profession of this person.{end}",
        "What does this person do for a living?",
        "From a name to an occupation.{end}",
        "Name the line of work of the {given} person.{end}",
    ),
    "person-sport": (
        "{write} the sport of this athlete.{end}",
        "At what sport does this person compete?",
        "From an athlete to a sport.{end}",
        "Name the game that the athlete is known for.{end}",
    ),
    "product-company": (
        "{write} the maker of this product.{end}",
        "Who makes it?",
        "From a product to its company.{end}",
        "Name the company behind the {given} product.{end}",
    ),
    "sum": (
        "Add the two numbers.{end}",
        "{write} the sum of both numbers.{end}",
        "What is the total?",
        "First number plus second number.{end}",
    ),
    "diff": (
        "Subtract the second number from the first.{end}",
        "{write} the difference of the two numbers.{end}",
        "First number minus second number.{end}",
        "How much is left when the second is taken away?",
    ),
    "taxonomy_animal": (
        "{write} all animals in the list.{end}",
        "Keep only the animals.{end}",
        "Which of the words are animals?",
        "Drop every word that is no animal.{end}",
    ),
    "conll2003_location": (
        "{write} the place that the sentence names.{end}",
        "Which location is mentioned?",
        "Copy the place name from the text.{end}",
    ),
    "conll2003_organization": (
        "{write} the organisation that the sentence names.{end}",
        "Which company, party or club is mentioned?",
        "Copy the name of the organisation from the text.{end}",
    ),
    "conll2003_person": (
        "{write} the person that the sentence names.{end}",
        "Who is mentioned?",
        "Copy the name of the person from the text.{end}",
    ),
    "word_in_context": (
        "Has the word the same sense in both sentences? Answer same or not the same.",
        "{write} same if the word means the same twice, else not the same.{end}",
        "Compare the word's meaning in the two sentences: same or not the same.{end}",
    ),
}
"""Task name -> patterns; tasks that share an entry ask for the same."""
